"""Decoding strategies; one member per file."""

from typing import Annotated

from pydantic import Field

from engine.core.part import named
from stages.predict.decoding.greedy import Greedy
from stages.predict.decoding.sample import Sample

Decoding = Annotated[Greedy | Sample, Field(discriminator="kind"), named]
