"""Llama 3.1's scaling (Grattafiori et al., 2024, arXiv:2407.21783): long wavelengths are interpolated, short ones stay."""

from typing import Literal, Self

from pydantic import model_validator
from pydantic_core import PydanticCustomError

from engine.core.part import recipe
from stages.rescale.scalings.base import WithOriginal


class Llama3(WithOriginal):
    """Long wavelengths are interpolated, short ones stay; the scaling of Llama 3.1."""

    kind: Literal["llama3"] = "llama3"
    low_freq_factor: float = recipe(1.0, "Wavelengths above the original context divided by this are interpolated.", gt=0)
    high_freq_factor: float = recipe(4.0, "Wavelengths below the original context divided by this stay.", gt=0)

    @model_validator(mode="after")
    def _high_above_low(self) -> Self:
        if self.high_freq_factor <= self.low_freq_factor:
            message = "high_freq_factor must be greater than low_freq_factor ({low}), got {high}"
            values = {"low": self.low_freq_factor, "high": self.high_freq_factor, "at": ("high_freq_factor",)}
            raise PydanticCustomError("frequencies", message, values)
        if self.factor == 1:
            raise PydanticCustomError("factor", "llama3 needs a factor greater than 1", {"at": ("factor",)})
        return self
