"""predict: a model, or several adapters on one model, answer the test rows of several tasks."""

from typing import Literal

from engine.core.part import Kind, Part, recipe, resource
from stages.chat.formats import Format
from stages.chat.formats.plain import Plain
from stages.chat.markers import Markers
from stages.predict.decoding import Decoding, Greedy
from stages.rows.control_tokens import ControlTokens


class TaskPrediction(Part):
    """How one task is asked."""

    max_new_tokens: int = recipe(64, "The answer is cut off after this many tokens.", gt=0)


class Asking(Part):
    """How rows are asked, whatever the task."""

    decoding: Decoding = recipe(Greedy(), "How the next token is chosen.")
    rows: int | None = recipe(None, "Ask only this many rows of each test split (chosen by content hash).", gt=0)


class Parameters(Asking):
    """Which test rows a model answers, and how."""

    tasks: dict[str, TaskPrediction] = recipe(description="The tasks whose test rows are asked.")
    held_out: tuple[str, ...] = recipe((), "The tasks whose test rows are only read, for their likelihood.")
    likelihood: bool = recipe(False, "Whether the likelihood of the references is measured too.")
    format: Format = recipe(Plain(), "How rows become questions: as they became text for the training.")
    markers: Markers | None = recipe(None, "Texts that mark whose turn it is, where the training learned by them.")
    boundary: Literal["apart", "shift"] = recipe("apart", "How texts are encoded together, as in the training.")
    encoder_decoder: bool = recipe(False, "Whether questions are the input of an encoder.")
    over_length: Literal["error", "drop", "truncate_prompt_left"] = recipe(
        "error",
        "What happens to a prompt that leaves no room for the answer: fail, leave the row out (counted), or cut its beginning (counted).",
    )
    unrendered: Literal["refuse", "drop", "allow"] = recipe(
        "refuse", "What happens to a row of which the format leaves out a part that is asked: fail, leave the row out (counted), or ask."
    )
    control_tokens_in_text: ControlTokens = recipe("text", "What happens to control tokens in the text of a question, as in the training.")
    strip_reasoning: bool = recipe(False, "Whether the reasoning of answers is left out, as in the training.")
    batch_rows: int = resource(64, "Rows that are generated at once.", gt=0)
    threads: int | None = resource(None, "CPU threads; none given: all cores.", gt=0)


KIND = Kind(
    "predict",
    "Let a model answer the test rows of several tasks.",
    Parameters,
    environment=("peft", "safetensors", "tokenizers", "torch", "transformers"),
    slot="device",
)
