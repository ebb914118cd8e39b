"""Compatibility of tokenization options with encoder-decoder models, with pairs of answers, and with answers that were judged alone."""

from typing import Any


def unfit(encoder_decoder: bool, mask: str, over_length: str, max_target_length: int | None) -> tuple[str, str] | None:
    """A field that is incompatible with the type of model, and why; None if all are compatible."""
    if encoder_decoder and mask != "completion":
        return "mask", "an encoder-decoder model is supervised on its labels: the mask must be completion"
    if encoder_decoder and over_length == "split":
        return "over_length", "rows of an encoder-decoder model cannot be split"
    if max_target_length and not encoder_decoder:
        return "max_target_length", "max_target_length is only for encoder-decoder models"
    return None


def unfit_for_pairs(labels: Any) -> tuple[str, str, str] | None:
    """A field of LABELS (`stages.tokenize.Labels`) that is incompatible with pairs of answers, why, and what to set; None if all fit."""
    mask = labels.mask
    if mask.kind != "completion" and not (mask.kind == "assistant" and mask.turns == "last"):
        return (
            "mask",
            "the objective compares the two answers of a pair, so that only the last answer may be supervised",
            'set mask = "completion"',
        )
    if labels.over_length in ("split", "truncate_completion_right"):
        what = f'over_length "{labels.over_length}" would cut the two answers of a pair differently'
        return "over_length", what, 'set "drop" (both answers) or "truncate_prompt_left" (the same tokens of both prompts)'
    if labels.boundary == "shift":
        what = 'boundary "shift" may encode the prompt differently before each of the two answers of a pair'
        return "boundary", what, 'set boundary = "apart"'
    if getattr(labels, "encoder_decoder", False):
        return "encoder_decoder", "pairs of answers are supported for causal models only", "use a causal model"
    return None


def unfit_for_judged(labels: Any) -> tuple[str, str, str] | None:
    """A field of LABELS (`stages.tokenize.Labels`) that is incompatible with judged answers, why, and what to set; None if all fit."""
    mask = labels.mask
    if mask.kind != "completion" and not (mask.kind == "assistant" and mask.turns == "last"):
        return "mask", "the label judges the last answer of a row, so that only this answer may be supervised", 'set mask = "completion"'
    if labels.over_length == "split":
        what = 'over_length "split" would cut an answer that was judged as a whole into several'
        return "over_length", what, 'set "drop", "truncate_prompt_left" or "truncate_completion_right"'
    if getattr(labels, "encoder_decoder", False):
        return "encoder_decoder", "judged answers are supported for causal models only", "use a causal model"
    return None
