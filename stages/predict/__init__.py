"""predict: a model, or several adapters on one model, answer the test rows of several tasks."""

from typing import Literal

from engine.core.part import Kind, Part, recipe, resource
from stages.chat.formats import Format
from stages.chat.formats.plain import Plain
from stages.chat.markers import Markers
from stages.predict.decoding import Decoding, Greedy
from stages.rows.control_tokens import ControlTokens


class TaskPrediction(Part):
    """Generation settings of one task."""

    max_new_tokens: int = recipe(64, "Maximum tokens per answer.", gt=0)


class Asking(Part):
    """Generation settings of all tasks."""

    decoding: Decoding = recipe(Greedy(), "Decoding strategy.")
    rows: int | None = recipe(None, "Evaluate only this many rows of each test split (chosen by content hash).", gt=0)


class Parameters(Asking):
    """Which test rows a model answers, and how."""

    tasks: dict[str, TaskPrediction] = recipe(description="Tasks whose test rows are answered.")
    held_out: tuple[str, ...] = recipe((), "Tasks of which only the likelihood of the test rows is measured.")
    likelihood: bool = recipe(False, "Whether the likelihood of the references is measured too.")
    format: Format = recipe(Plain(), "Format of prompts, as in training.")
    markers: Markers | None = recipe(None, "Marker texts between turns, if the training used them.")
    boundary: Literal["apart", "shift"] = recipe("apart", "How prompt and completion are tokenized at their boundary, as in training.")
    encoder_decoder: bool = recipe(False, "Whether the prompt is the input of an encoder.")
    over_length: Literal["error", "drop", "truncate_prompt_left"] = recipe(
        "error",
        "Prompts that leave no room for the answer: fail, leave the row out (counted), or truncate on the left (counted).",
    )
    unrendered: Literal["refuse", "drop", "allow"] = recipe(
        "refuse", "Rows whose prompt the format renders incompletely: fail, leave the row out (counted), or use the rest."
    )
    control_tokens_in_text: ControlTokens = recipe("text", "Control tokens in the text of a prompt, treated as in training.")
    strip_reasoning: bool = recipe(False, "Whether the reasoning of answers is removed, as in training.")
    batch_rows: int = resource(64, "Rows per batch.", gt=0)
    threads: int | None = resource(None, "CPU threads; if unset, all cores.", gt=0)


KIND = Kind(
    "predict",
    "Generate a model's answers to the test rows of several tasks.",
    Parameters,
    environment=("peft", "safetensors", "tokenizers", "torch", "transformers"),
    slot="device",
)
