"""LongRoPE (Ding et al., 2024, arXiv:2402.13753): a factor for each frequency, one list up to the original context and one beyond it."""

from typing import Annotated, Literal

from pydantic import Field

from engine.core.part import recipe
from stages.rescale.scalings.base import WithOriginal

Factors = Annotated[tuple[Annotated[float, Field(gt=0)], ...], Field(min_length=1)]


class LongRope(WithOriginal):
    """A factor for each frequency, searched for one model; the scaling of Phi-3."""

    kind: Literal["longrope"] = "longrope"
    short_factor: Factors = recipe(description="Factors within the original context: half as many as a head has rotary dimensions.")
    long_factor: Factors = recipe(description="Factors beyond the original context, as many.")
    attention_factor: float | None = recipe(None, "Factor on the attention; if unset, sqrt(1 + ln(factor) / ln(original length)).", ge=0)
