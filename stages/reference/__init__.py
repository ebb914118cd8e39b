"""reference: the log-probabilities that a reference model gives to the answers of pairs, which trainings compare their model with."""

from typing import Literal

from engine.core.part import Kind, Part, recipe, resource
from stages.models.attention import Attention
from stages.models.quantisation import Quantisation


class Parameters(Part):
    """How the reference model is computed: as the training computes the model that it starts from."""

    precision: Literal["float32", "tf32", "bfloat16", "float16"] = recipe("float32", "Precision of matrix multiplications, as in training.")
    dtype: Literal["float32", "bfloat16", "float16"] = recipe("float32", "Data type of the weights, as in training.")
    quantisation: Quantisation | None = recipe(None, "Quantisation of the frozen weights, as in training; if unset, none.")
    mismatched: bool = recipe(
        False, "Whether each answer stands after the prompt of another row instead of its own, for KTO's estimate of the KL divergence."
    )
    attention: Attention = resource("auto", "Attention implementation.")
    threads: int | None = resource(None, "CPU threads; if unset, all cores.", gt=0)


KIND = Kind(
    "reference",
    "Compute the log-probabilities of the answers of pairs, or of judged answers, under the model that trainings start from.",
    Parameters,
    environment=("numpy", "peft", "safetensors", "torch", "transformers"),
    slot="device",
)
