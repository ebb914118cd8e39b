"""Cleaning rules, which leave rows out by their texts; one rule per file."""

from typing import Annotated

from pydantic import Field

from engine.core.part import named
from stages.generate.cleaning.characters import Characters
from stages.generate.cleaning.duplicates import Duplicates
from stages.generate.cleaning.length import Length
from stages.generate.cleaning.near_duplicates import NearDuplicates
from stages.generate.cleaning.overlap import Overlap
from stages.generate.cleaning.script import Script

CleaningRule = Annotated[Characters | Duplicates | Length | NearDuplicates | Overlap | Script, Field(discriminator="kind"), named]
