"""logits: what a teacher predicts at every supervised token, its likeliest next tokens, which trainings of students learn from."""

from typing import Literal

from engine.core.part import Kind, Part, recipe, resource
from stages.models.attention import Attention


class Parameters(Part):
    """How many tokens are kept, and how the teacher is computed."""

    top_k: int = recipe(description="Number of the likeliest tokens that are kept at each supervised token.", gt=0)
    precision: Literal["float32", "tf32", "bfloat16", "float16"] = recipe(
        "float32", "Precision of matrix multiplications, as in training; with `bfloat16` and `float16` also of the weights."
    )
    attention: Attention = resource("auto", "Attention implementation.")
    threads: int | None = resource(None, "CPU threads; if unset, all cores.", gt=0)


KIND = Kind(
    "logits",
    "Compute the likeliest next tokens of a teacher, and their log-probabilities, for students to learn from.",
    Parameters,
    environment=("numpy", "peft", "safetensors", "torch", "transformers"),
    slot="device",
)
