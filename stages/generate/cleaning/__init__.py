"""Cleaning rules, which leave rows out by their texts; one rule per file."""

from stages.generate.cleaning.characters import Characters
from stages.generate.cleaning.duplicates import Duplicates
from stages.generate.cleaning.length import Length
from stages.generate.cleaning.near_duplicates import NearDuplicates
from stages.generate.cleaning.script import Script

TextRule = Characters | Duplicates | Length | NearDuplicates | Script
"""The rules that need nothing but the texts; `overlap`, which also reads a source, joins them in `stages.generate`."""
