"""merge: one adapter, or several, become part of the weights of the model below them."""

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
    """Which adapters become part of the weights, how, and how that is checked."""

    adapters: dict[Name, float] = recipe({}, "Experiments whose adapters are merged, with weights; none given: this one's, with weight 1.")
    combination: Combination = recipe(Linear(), "How the updates of several adapters become one.")
    seed: int = recipe(0, "Seed of the numbers that DARE drops.", ge=0, lt=2**63)
    max_shard_size: str = recipe("5GB", "Largest file of weights.", pattern=r"^[1-9][0-9]*(KB|MB|GB)$")
    check_rows: int = recipe(8, "Rows of each task on which the merged model is compared with the adapter on its base.", gt=0)
    tolerance: float = recipe(1e-4, "Largest difference of two logits, as a share of the largest logit.", gt=0, lt=1)

    @model_validator(mode="after")
    def _several(self) -> Self:
        if len(self.adapters) < 2 and self.combination.kind != "linear":
            what = "{kind} combines several adapters: name two at least in merge.adapters, or leave combination out"
            raise PydanticCustomError("one_adapter", what, {"kind": self.combination.kind, "at": ("combination",)})
        return self


class Parameters(Merging):
    """What is merged into what, and how the rows of the check become tokens."""

    quantised: Quantisation | None = recipe(None, "How the base was kept in the training; none given: in full precision.")
    format: Format = recipe(Plain(), "How rows become text, as in the training.")
    boundary: Literal["apart", "shift"] = recipe("apart", "How texts are encoded together, as in the training.")
    encoder_decoder: bool = recipe(False, "Whether questions are the input of an encoder.")
    threads: int | None = resource(None, "CPU threads; none given: all cores.", gt=0)


KIND = Kind(
    "merge",
    "Merge adapters into the full weights of their base.",
    Parameters,
    environment=("peft", "safetensors", "tokenizers", "torch", "transformers"),
)
