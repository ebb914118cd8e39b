"""Combinations of several adapters; one member per file."""

from typing import Annotated

from pydantic import Field

from engine.core.part import named
from stages.merge.combinations.dare_linear import DareLinear
from stages.merge.combinations.dare_ties import DareTies
from stages.merge.combinations.linear import Linear
from stages.merge.combinations.svd import Svd
from stages.merge.combinations.ties import Ties

Combination = Annotated[DareLinear | DareTies | Linear | Svd | Ties, Field(discriminator="kind"), named]
