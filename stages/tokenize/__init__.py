"""tokenize: rows become token ids and a mask of the supervised ones."""

from typing import ClassVar, Literal, Self

from pydantic import model_validator
from pydantic_core import PydanticCustomError

from engine.core.part import Kind, Part, recipe
from stages.chat.formats import Format
from stages.chat.formats.plain import Plain
from stages.rows.control_tokens import ControlTokens
from stages.tokenize.masks import Completion, Mask
from stages.tokenize.pairs import unfit


class PythonTokenizer(Part):
    """A tokenizer without a tokenizer.json, written in Python: transformers reads it."""

    environment: ClassVar[tuple[str, ...]] = ("transformers",)


class Labels(Part):
    """How rows become tokens and labels, whatever model they are for."""

    format: Format = recipe(Plain(), "How system prompt, prompt and messages become text.")
    mask: Mask = recipe(Completion(), "Which tokens the model learns from.")
    boundary: Literal["apart", "shift"] = recipe(
        "apart",
        "Where the tokenizer would merge the end of a prompt with the beginning of an answer: encode both apart, or encode them together "
        "and let the answer begin at the next token (rows that this moves are counted).",
    )
    max_length: int = recipe(512, "Longest row, in tokens, the end-of-sequence token included.", gt=1)
    over_length: Literal["error", "drop", "truncate_prompt_left", "truncate_completion_right", "split"] = recipe(
        "error",
        "What happens to a longer row: fail, leave it out (counted), shorten one side (counted; the end token stays), or cut it into "
        "several rows, between turns where it has some.",
    )
    nothing_supervised: Literal["error", "drop"] = recipe("drop", "A row without anything to learn fails, or is left out (counted).")
    max_target_length: int | None = recipe(None, "Longest labels of an encoder-decoder model, in tokens; none given: max_length.", gt=1)
    unrendered: Literal["refuse", "drop", "allow"] = recipe(
        "refuse",
        "What happens to a row whose template leaves out a part of a message, such as reasoning or calls of tools: fail, leave the row out "
        "(counted), or use it without that part (counted).",
    )
    control_tokens_in_text: ControlTokens = recipe(
        "text",
        "What happens to control tokens in the text of users, tools and system prompts: they are encoded as text, the row fails or is left "
        "out, or they stay control tokens; all of them are counted.",
    )
    python_tokenizer: PythonTokenizer | None = recipe(None, "Set by itself where model.tokenizer_files names no tokenizer.json.")


class Parameters(Labels):
    """How rows become tokens and labels."""

    encoder_decoder: bool = recipe(False, "Inputs and labels of their own, as T5 wants them; max_length then bounds the input.")

    @model_validator(mode="after")
    def _fit(self) -> Self:
        if found := unfit(self.encoder_decoder, self.mask.kind, self.over_length, self.max_target_length):
            raise PydanticCustomError("unfit_labels", "{what}", {"what": found[1], "at": (found[0],)})
        return self


KIND = Kind(
    "tokenize",
    "Turn rows into token ids and a mask of the supervised ones.",
    Parameters,
    environment=("numpy", "safetensors", "tokenizers"),
)
