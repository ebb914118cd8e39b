"""tokenize: prompt and completion become token ids and a mask of the supervised ones."""

from typing import Literal

from engine.part import Kind, Part, recipe
from stages.tokenize.masks import Completion, Mask


class Parameters(Part):
    """How rows become tokens and labels."""

    mask: Mask = recipe(Completion(), "Which tokens the model learns from.")
    max_length: int = recipe(512, "Longest row, in tokens, the end-of-sequence token included.", gt=1)
    over_length: Literal["error", "drop", "truncate_prompt_left", "truncate_completion_right"] = recipe(
        "error", "What happens to a longer row: fail, leave it out (counted), or shorten one side (counted; the end token stays)."
    )


KIND = Kind(
    "tokenize",
    "Turn rows into token ids and a mask of the supervised ones.",
    Parameters,
    environment=("numpy", "safetensors", "tokenizers"),
)
