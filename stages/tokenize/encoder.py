"""A tokenizer read from its two files, with the end-of-sequence token, and whether it decodes what it encodes."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from tokenizers import Tokenizer

from engine.errors import Location, UserError


@dataclass(frozen=True)
class Encoder:
    """Encodes text without adding special tokens; special tokens that stand in the text are recognised."""

    tokenizer: Tokenizer
    eos: str
    eos_id: int
    lossless: bool
    """Whether every text must decode back to itself: byte-level tokenizers that change nothing before encoding."""

    @classmethod
    def open(cls, tokenizer: Path, config: Path) -> Self:
        """The tokenizer of `tokenizer.json` and `tokenizer_config.json`; raises UserError where they are unusable."""
        opened = _tokenizer(tokenizer)
        eos = _eos(config)
        eos_id = opened.token_to_id(eos)
        if eos_id is None:
            raise UserError(f"eos_token {eos!r} is no token of {tokenizer.name}", Location(str(config)), "take both files from one model")
        return cls(opened, eos, eos_id, _is_lossless(json.loads(opened.to_str())))

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text."""
        return [encoding.ids for encoding in self.tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)]

    def decode(self, rows: Iterable[Sequence[int]]) -> list[str]:
        """The text of each row of ids, special tokens included."""
        return self.tokenizer.decode_batch([list(ids) for ids in rows], skip_special_tokens=False)


def _tokenizer(path: Path) -> Tokenizer:
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises plain Exception whatever is wrong
        raise UserError(f"this is no tokenizer that the tokenizers library reads: {error}", Location(str(path))) from None
    # A file may carry the limits it was last used with; they would cut and pad behind our back.
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _eos(path: Path) -> str:
    try:
        config = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise UserError(f"this is no JSON: {error}", Location(str(path))) from None
    eos = config.get("eos_token")
    if isinstance(eos, dict):
        eos = eos.get("content")
    if not isinstance(eos, str) or not eos:
        hint = 'without one the model never learns to stop; add "eos_token" to the file, or choose a model that has one'
        raise UserError("this tokenizer has no eos_token", Location(str(path)), hint)
    return eos


def _is_lossless(tokenizer: dict[str, Any]) -> bool:
    """Byte-level decoding, no normalizer, no added prefix space, no split that removes text, no token that swallows spaces beside it."""
    splits = list(_members(tokenizer["pre_tokenizer"], "pretokenizers"))
    return (
        tokenizer["normalizer"] is None
        and [member["type"] for member in _members(tokenizer["decoder"], "decoders")] == ["ByteLevel"]
        and any(split["type"] == "ByteLevel" for split in splits)
        and all(_keeps_all(split) for split in splits)
        and not any(token["lstrip"] or token["rstrip"] for token in tokenizer["added_tokens"])
    )


def _members(part: dict[str, Any] | None, key: str) -> list[dict[str, Any]]:
    """The members of a sequence, or the one part there is."""
    if part is None:
        return []
    return list(part[key]) if part["type"] == "Sequence" else [part]


def _keeps_all(split: dict[str, Any]) -> bool:
    match split["type"]:
        case "ByteLevel":
            return split["add_prefix_space"] is False
        case "Split" | "Punctuation":
            return bool(split["behavior"] != "Removed")
        case kind:
            return bool(kind == "Digits")
