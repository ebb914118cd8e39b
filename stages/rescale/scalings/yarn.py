"""YaRN (Peng et al., 2023, arXiv:2309.00071): low frequencies are interpolated, high ones stay, attention is sharpened."""

from typing import Literal, Self

from pydantic import model_validator
from pydantic_core import PydanticCustomError

from engine.core.part import recipe
from stages.rescale.scalings.base import WithOriginal


class Yarn(WithOriginal):
    """Low frequencies are interpolated, high ones stay; the scaling of Qwen2.5 and Qwen3 for long contexts."""

    kind: Literal["yarn"] = "yarn"
    attention_factor: float | None = recipe(None, "Factor on the attention's logits; if unset, 0.1 ln(factor) + 1.", ge=0)
    beta_fast: float = recipe(32.0, "Rotations over the original context from which frequencies stay.", gt=0)
    beta_slow: float = recipe(1.0, "Rotations over the original context up to which frequencies are interpolated.", gt=0)

    @model_validator(mode="after")
    def _fast_above_slow(self) -> Self:
        if self.beta_fast < self.beta_slow:
            message = "beta_fast must be at least beta_slow ({slow}), got {fast}"
            raise PydanticCustomError("betas", message, {"slow": self.beta_slow, "fast": self.beta_fast, "at": ("beta_fast",)})
        return self
