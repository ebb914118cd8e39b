"""tokenize: turn rows into token ids and a mask of supervised tokens."""

from typing import ClassVar, Literal, Self

from pydantic import model_validator
from pydantic_core import PydanticCustomError

from engine.core.part import Kind, Part, recipe
from stages.chat.formats import Format
from stages.chat.formats.plain import Plain
from stages.rows.control_tokens import ControlTokens
from stages.tokenize.masks import Completion, Mask
from stages.tokenize.pairs import unfit, unfit_for_judged, unfit_for_pairs


class PythonTokenizer(Part):
    """A Python tokenizer without tokenizer.json, which transformers loads."""

    environment: ClassVar[tuple[str, ...]] = ("transformers",)


class Labels(Part):
    """How rows become tokens and labels, for any model."""

    format: Format = recipe(Plain(), "Format of rows: how system prompt, prompt and messages become text.")
    mask: Mask = recipe(Completion(), "Which tokens are supervised.")
    boundary: Literal["apart", "shift"] = recipe(
        "apart",
        "Boundary of prompt and answer, where the tokenizer could merge them into one token: encode them separately, or together, with the "
        "answer starting at the next token (affected rows are counted).",
    )
    max_length: int = recipe(512, "Maximum row length, in tokens, including the end-of-sequence token.", gt=1)
    over_length: Literal["error", "drop", "truncate_prompt_left", "truncate_completion_right", "split"] = recipe(
        "error",
        "Rows longer than max_length: fail, leave the row out (counted), truncate one side (counted; the end token is kept), or split it "
        "into several rows, between turns if possible.",
    )
    nothing_supervised: Literal["error", "drop"] = recipe("drop", "Rows without supervised tokens: fail, or leave the row out (counted).")
    max_target_length: int | None = recipe(
        None, "Maximum length of the labels of an encoder-decoder model, in tokens; if unset, max_length.", gt=1
    )
    unrendered: Literal["refuse", "drop", "allow"] = recipe(
        "refuse",
        "Rows that the template renders incompletely, such as without reasoning or tool calls: fail, leave the row out "
        "(counted), or use the rest (counted).",
    )
    control_tokens_in_text: ControlTokens = recipe(
        "text",
        "Control tokens in messages of users and tools and in system prompts: encode them as text, fail, leave the row "
        "out, or keep them as control tokens; all are counted.",
    )
    python_tokenizer: PythonTokenizer | None = recipe(None, "Set automatically if model.tokenizer_files does not list tokenizer.json.")


class Parameters(Labels):
    """How rows become tokens and labels."""

    encoder_decoder: bool = recipe(False, "Whether inputs and labels are separate, as for T5; max_length then limits the input.")
    pairs: bool = recipe(
        False, "Whether both answers of each row are tokenized, the chosen and the rejected one, for an objective on pairs."
    )
    judged: bool = recipe(False, "Whether rows are answers that were judged alone: undesirable ones are tokenized too, and each is marked.")

    @model_validator(mode="after")
    def _fit(self) -> Self:
        if found := unfit(self.encoder_decoder, self.mask.kind, self.over_length, self.max_target_length):
            raise PydanticCustomError("unfit_labels", "{what}", {"what": found[1], "at": (found[0],)})
        if self.pairs and (wrong := unfit_for_pairs(self)):
            raise PydanticCustomError("unfit_labels", "{what}", {"what": f"{wrong[1]}; {wrong[2]}", "at": (wrong[0],)})
        if self.judged and (wrong := unfit_for_judged(self)):
            raise PydanticCustomError("unfit_labels", "{what}", {"what": f"{wrong[1]}; {wrong[2]}", "at": (wrong[0],)})
        return self


KIND = Kind(
    "tokenize",
    "Turn rows into token ids and a mask of supervised tokens.",
    Parameters,
    environment=("numpy", "safetensors", "tokenizers"),
)
