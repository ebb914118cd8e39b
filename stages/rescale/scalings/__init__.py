"""Scalings of rotary positions (RoPE), with names and rules of transformers (modeling_rope_utils.py); one member per file."""

from typing import Annotated

from pydantic import Field

from stages.rescale.scalings.dynamic import Dynamic
from stages.rescale.scalings.linear import Linear
from stages.rescale.scalings.llama3 import Llama3
from stages.rescale.scalings.longrope import LongRope
from stages.rescale.scalings.yarn import Yarn

Scaling = Annotated[Dynamic | Linear | Llama3 | LongRope | Yarn, Field(discriminator="kind")]
