"""merge: merge one or several adapters into the weights of their base."""

from typing import Literal, Self

from pydantic import model_validator
from pydantic_core import PydanticCustomError

from engine.core.part import Kind, Name, Part, recipe, resource
from stages.chat.formats import Format
from stages.chat.formats.plain import Plain
from stages.merge.combinations import Combination
from stages.merge.combinations.linear import Linear
from stages.models.quantisation import Quantisation


class Merging(Part):
    """Which adapters are merged, how they are combined, and how the result is verified."""

    adapters: dict[Name, float] = recipe({}, "Experiments whose adapters are merged, with weights; if empty, this one's with weight 1.")
    combination: Combination = recipe(Linear(), "How the updates of several adapters are combined.")
    seed: int = recipe(0, "Seed of the elements that DARE drops.", ge=0, lt=2**63)
    max_shard_size: str = recipe("5GB", "Maximum size of a weights file.", pattern=r"^[1-9][0-9]*(KB|MB|GB)$")
    check_rows: int = recipe(8, "Rows per task on which the merged model is compared with the adapter on its base.", gt=0)
    tolerance: float = recipe(1e-4, "Maximum difference of two logits, relative to the largest logit.", gt=0, lt=1)

    @model_validator(mode="after")
    def _several(self) -> Self:
        if len(self.adapters) < 2 and self.combination.kind != "linear":
            what = "{kind} combines several adapters: list at least two in merge.adapters, or remove combination"
            raise PydanticCustomError("one_adapter", what, {"kind": self.combination.kind, "at": ("combination",)})
        return self


class Parameters(Merging):
    """Which adapters are merged into which base, and how the rows of the check are tokenized."""

    quantised: Quantisation | None = recipe(None, "Quantisation of the base in training; if unset, full precision.")
    format: Format = recipe(Plain(), "Format of rows, as in training.")
    boundary: Literal["apart", "shift"] = recipe("apart", "How prompt and completion are tokenized at their boundary, as in training.")
    encoder_decoder: bool = recipe(False, "Whether the prompt is the input of an encoder.")
    threads: int | None = resource(None, "CPU threads; if unset, all cores.", gt=0)


KIND = Kind(
    "merge",
    "Merge adapters into the full weights of their base.",
    Parameters,
    environment=("peft", "safetensors", "tokenizers", "torch", "transformers"),
)
