"""Pre-tokenization rules of byte-pair tokenizers, by their names in GGUF files (`tokenizer.ggml.pre`).

The rules are those of the models' tokenizer.json files; llama.cpp uses the same names (src/llama-vocab.cpp).
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from engine.core.errors import Location, UserError

_GPT2 = ("gpt-2", "phi-2")
_DIGITS_THEN_GPT2 = ("smollm", "starcoder", "refact")
"""Each digit is a separate piece; the rest is split as by GPT-2."""

_LLAMA3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_QWEN2 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_EXPRESSIONS = {"llama-bpe": _LLAMA3, "qwen2": _QWEN2}
_COMPOSED = ("qwen2",)
"""Rules that first normalise text to NFC."""


def set_rules(tokenizer: Any, name: str, file: Path) -> None:
    """Make TOKENIZER (a `tokenizers.Tokenizer`) split text by the rule NAME of FILE; raises UserError for an unknown rule."""
    from tokenizers import Regex
    from tokenizers.normalizers import NFC
    from tokenizers.pre_tokenizers import ByteLevel, Digits, Sequence, Split

    if name in _GPT2:
        tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False)
    elif name in _DIGITS_THEN_GPT2:
        tokenizer.pre_tokenizer = Sequence([Digits(individual_digits=True), ByteLevel(add_prefix_space=False)])
    elif name in _EXPRESSIONS:
        split = Split(Regex(_EXPRESSIONS[name]), "isolated")
        tokenizer.pre_tokenizer = Sequence([split, ByteLevel(add_prefix_space=False, use_regex=False)])
    else:
        known = ", ".join(sorted((*_GPT2, *_DIGITS_THEN_GPT2, *_EXPRESSIONS)))
        what = f"unknown pre-tokenizer {name!r} (tokenizer.ggml.pre): text would get other tokens than the model was trained on"
        raise UserError(what, Location(str(file)), f"use the model's safetensors with its tokenizer.json; known pre-tokenizers: {known}")
    tokenizer.normalizer = NFC() if name in _COMPOSED else None


def rule_of(description: Mapping[str, Any]) -> str | None:
    """The name of the rule by which a tokenizer splits text; None if it is none of those known here.

    DESCRIPTION is the content of its tokenizer.json.
    """
    from tokenizers import Tokenizer
    from tokenizers.models import BPE

    for name in (_GPT2[0], _DIGITS_THEN_GPT2[0], *_EXPRESSIONS):
        known = Tokenizer(BPE())
        set_rules(known, name, Path())
        if _settings(json.loads(known.to_str())) == _settings(description):
            return name
    return None


def _settings(description: Mapping[str, Any]) -> tuple[Any, Any]:
    """What decides how text is split: the pre-tokenizer, without what only trims offsets, and the normalizer."""
    return _without_offsets(description.get("pre_tokenizer")), description.get("normalizer")


def _without_offsets(value: Any) -> Any:
    if isinstance(value, list):
        return [_without_offsets(one) for one in value]
    if isinstance(value, dict):
        return {key: _without_offsets(one) for key, one in value.items() if key != "trim_offsets"}
    return value
