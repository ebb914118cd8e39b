"""Which weights are trained, and how; one member a file."""

from typing import Annotated

from pydantic import Field

from engine.part import named
from stages.train.methods.full import Full
from stages.train.methods.lora import Lora

Method = Annotated[Full | Lora, Field(discriminator="kind"), named]
