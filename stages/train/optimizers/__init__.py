"""Optimizers; one member per file."""

from typing import Annotated

from pydantic import Field

from engine.core.part import named
from stages.train.optimizers.adafactor import Adafactor
from stages.train.optimizers.adamw import AdamW
from stages.train.optimizers.adamw_8bit import AdamW8bit
from stages.train.optimizers.paged_adamw import PagedAdamW

Optimizer = Annotated[Adafactor | AdamW | AdamW8bit | PagedAdamW, Field(discriminator="kind"), named]
