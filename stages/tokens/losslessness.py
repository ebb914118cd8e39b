"""Lossless tokenizers, which decode every text to itself, and the bytes of their tokens."""

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]


def byte_table(vocabulary: Mapping[str, int], added: Collection[str]) -> tuple[Array, Array]:
    """The bytes of all tokens of a byte-level tokenizer, concatenated by id (uint8), and their offsets (int64 [tokens + 1])."""
    size = max(vocabulary.values()) + 1
    tokens = [b""] * size
    names = set(added)
    for token, number in vocabulary.items():
        tokens[number] = token.encode() if token in names else _bytes(token)
    ends = np.cumsum([len(token) for token in tokens], dtype=np.int64)
    return np.frombuffer(b"".join(tokens), np.uint8), np.concatenate([np.zeros(1, np.int64), ends])


def _bytes(token: str) -> bytes:
    """The bytes of a token in byte-level notation; of other tokens, their UTF-8 text."""
    try:
        return bytes(_BYTES[character] for character in token)
    except KeyError:
        return token.encode()


def _notation() -> dict[str, int]:
    """GPT-2's byte-level notation: printable Latin-1 bytes map to themselves, the others to characters from U+0100 on, in order."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(0x100 + number): byte for number, byte in enumerate(others)}


_BYTES = _notation()


def is_lossless(tokenizer: dict[str, Any]) -> bool:
    """Whether it is lossless: byte-level, no normalizer, no prefix space, no split that removes text, no token that strips spaces."""
    splits = list(_members(tokenizer["pre_tokenizer"], "pretokenizers"))
    return (
        tokenizer["normalizer"] is None
        and [member["type"] for member in _members(tokenizer["decoder"], "decoders")] == ["ByteLevel"]
        and any(split["type"] == "ByteLevel" for split in splits)
        and all(_keeps_all(split) for split in splits)
        and not any(token["lstrip"] or token["rstrip"] for token in tokenizer["added_tokens"])
    )


def _members(part: dict[str, Any] | None, key: str) -> list[dict[str, Any]]:
    """The members of a sequence, or a single part as a list."""
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
