"""Layouts of rows in micro-batches; one member per file."""

from typing import Annotated

from pydantic import Field

from engine.core.part import named
from stages.train.batching.none import Unsorted
from stages.train.batching.packed import Packed
from stages.train.batching.padded import Padded
from stages.train.batching.padding_free import PaddingFree

Batching = Annotated[Packed | Padded | PaddingFree | Unsorted, Field(discriminator="kind"), named]
