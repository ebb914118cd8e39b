"""The vocabulary of a tokenizer as GGUF holds it: tokens, their types, merges, the rule of pre-tokenization, and special tokens.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from stages.tokens.encoder import Encoder
from stages.tokens.pre_tokenizers import rule_of

_NORMAL, _CONTROL, _USER_DEFINED, _UNUSED = 1, 3, 4, 5
_END_KEYS = ("eos", "eot", "eom")
"""The keys under which llama.cpp reads tokens that end an answer; it adds those whose text it knows."""


def vocabulary_of(encoder: Encoder, ends: Sequence[int], template: str | None, add_bos: bool) -> dict[str, Any]:
    """The vocabulary of ENCODER for `converting`; `tokens` is None if it is no byte-level BPE, which the converter then reads itself.

    ENDS are the ids of the end tokens, TEMPLATE is the chat template, ADD_BOS whether the runtime puts a BOS token before a text.
    """
    bos, pad = encoder.names.get("bos_token"), encoder.names.get("pad_token")
    named = {"bos": bos, "padding": pad, "unknown": encoder.names.get("unk_token")}
    special = {key: number for key, text in named.items() if text and (number := encoder.tokenizer.token_to_id(text)) is not None}
    special |= dict(zip(_END_KEYS, ends, strict=False))
    found: dict[str, Any] = {"tokens": None, "special": special, "add_bos": add_bos, "template": template}
    description = json.loads(encoder.tokenizer.to_str()) if encoder.has_offsets else {}
    model = description.get("model", {})
    if model.get("type") != "BPE" or model.get("byte_fallback") or not _is_byte_level(description):
        return found
    added = {token["id"]: token for token in description["added_tokens"]}
    by_id = {number: text for text, number in model["vocab"].items()} | {number: token["content"] for number, token in added.items()}
    tokens, types = [], []
    for number in range(max(by_id) + 1):
        tokens.append(by_id.get(number, f"[PAD{number}]"))
        types.append(_type(added[number]) if number in added else _NORMAL if number in by_id else _UNUSED)
    merges = [one if isinstance(one, str) else " ".join(one) for one in model["merges"]]
    return found | {"tokens": tokens, "types": types, "merges": merges, "pre_tokenizer": rule_of(description)}


def _type(token: Mapping[str, Any]) -> int:
    return _CONTROL if token["special"] else _USER_DEFINED


def _is_byte_level(description: Mapping[str, Any]) -> bool:
    return (description.get("decoder") or {}).get("type") == "ByteLevel"
