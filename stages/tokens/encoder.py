"""A tokenizer loaded from its files, used for rows and prompts alike."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from engine.core.errors import Location, UserError
from stages.tokens import FAST
from stages.tokens.losslessness import byte_table, is_lossless

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Array = np.ndarray[Any, np.dtype[Any]]

CONFIG = "tokenizer_config.json"
TEMPLATE = "chat_template.jinja"


@dataclass(frozen=True)
class Encoder:
    """Encodes text without adding special tokens; special tokens in the text are recognised.

    Uses the tokenizers library only: transformers may rebuild a tokenizer by its class, and then encode differently from tokenizer.json.
    Only a Python tokenizer, which has no such file, is loaded through transformers.
    """

    tokenizer: Any
    """A tokenizer of the tokenizers library, or one with the same interface."""
    eos: str
    eos_id: int
    names: Mapping[str, str] = field(default_factory=dict)
    """Special tokens by name, such as `bos_token`, for chat templates."""
    template: str | None = None
    """The chat template in the tokenizer's files, if any."""
    added: tuple[str, ...] = ()
    """Added tokens, special and others, which are matched in a text before tokenization."""
    special: tuple[str, ...] = ()
    """The special ones among them: markup, not text."""
    prefix: tuple[int, ...] = ()
    """Ids that the tokenizer adds before a text, such as a begin-of-sequence token."""
    suffix: tuple[int, ...] = ()
    """Ids that it adds after a text, such as T5's end of the encoder input."""
    lossless: bool = False
    """Whether every text must round-trip: byte-level tokenizers without normalisation."""
    guard: str = ""
    """Text encoded before a continuation, for tokenizers that would otherwise prepend a space to it."""

    @classmethod
    def open(cls, files: Mapping[str, Path]) -> Self:
        """The tokenizer in FILES, by name; raises UserError if they are unusable."""
        config = _config(files[CONFIG])
        names = {name: text for name, value in config.items() if name.endswith("_token") and (text := _text(value))}
        eos = _eos(names, files[CONFIG])
        template = files[TEMPLATE].read_text("utf-8") if TEMPLATE in files else _template(config)
        if FAST not in files:
            from stages.tokens.python_tokenizers import SlowTokenizer

            slow = SlowTokenizer(files)
            return cls(slow, eos, _eos_id(slow, eos, files), names, template, slow.added, slow.added, *slow.around())
        opened = _tokenizer(files[FAST])
        description = json.loads(opened.to_str())
        added = tuple(token["content"] for token in description["added_tokens"])
        special = tuple(token["content"] for token in description["added_tokens"] if token["special"])
        around, guard = _around(opened), _guard(opened, eos)
        # Without added tokens, the post-processor would only trim offsets.
        opened.post_processor = None
        return cls(opened, eos, _eos_id(opened, eos, files), names, template, added, special, *around, is_lossless(description), guard)

    @property
    def has_offsets(self) -> bool:
        """Whether encodings have character offsets."""
        return hasattr(self.tokenizer, "encode_batch")

    @property
    def bos(self) -> str | None:
        """Text of the begin-of-sequence token; None if there is none."""
        return self.names.get("bos_token")

    def size(self) -> int:
        """Number of embedding rows that a model needs for these tokens."""
        return max(self.tokenizer.get_vocab(with_added_tokens=True).values()) + 1

    def encode(self, texts: Sequence[str], inside: bool = False) -> list[list[int]]:
        """Token ids of each text; INSIDE: each continues a separately encoded text."""
        if not inside or not self.guard:
            return [encoding.ids for encoding in self.tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)]
        guarded = self.tokenizer.encode_batch_fast([self.guard + text for text in texts], add_special_tokens=False)
        return [self._unguarded(encoding.ids, text) for encoding, text in zip(guarded, texts, strict=True)]

    def _unguarded(self, ids: list[int], text: str) -> list[int]:
        size = len(self._guard_ids)
        # If the guard was merged with the text, fall back to encoding the text alone.
        return ids[size:] if ids[:size] == self._guard_ids else self.encode([text])[0]

    def encode_flat(self, texts: Sequence[str], inside: bool = False) -> tuple[Array, Array]:
        """Token ids of all TEXTS, concatenated (int32 [tokens]), and the number of tokens of each (int64 [texts])."""
        rows = self.encode(texts, inside)
        lengths = np.fromiter(map(len, rows), np.int64, len(rows))
        return np.fromiter(chain.from_iterable(rows), np.int32, int(lengths.sum())), lengths

    def encode_with_starts(self, texts: Sequence[str]) -> tuple[Array, Array, Array]:
        """Like `encode_flat`, with the character offset of each token in its text (int64 [tokens])."""
        encodings = self.tokenizer.encode_batch(list(texts), add_special_tokens=False)
        lengths = np.fromiter(map(len, encodings), np.int64, len(encodings))
        total = int(lengths.sum())
        ids = np.fromiter(chain.from_iterable(encoding.ids for encoding in encodings), np.int32, total)
        starts = np.fromiter((start for encoding in encodings for start, _ in encoding.offsets), np.int64, total)
        return ids, lengths, starts

    def decode(self, rows: Iterable[Sequence[int]], inside: bool = False) -> list[str]:
        """The text of each row of ids, including special tokens; INSIDE: each continues a text."""
        if not inside or not self.guard:
            return list(self.tokenizer.decode_batch([list(ids) for ids in rows], skip_special_tokens=False))
        found = self.tokenizer.decode_batch([[*self._guard_ids, *ids] for ids in rows], skip_special_tokens=False)
        (guard,) = self.decode([self._guard_ids])
        return [text.removeprefix(guard) for text in found]

    @cached_property
    def _guard_ids(self) -> list[int]:
        return list(self.tokenizer.encode(self.guard, add_special_tokens=False).ids)

    @cached_property
    def bytes_of(self) -> tuple[Array, Array]:
        """The bytes of all tokens, concatenated (uint8), and their offsets (int64 [tokens + 1]); only for lossless tokenizers."""
        assert self.lossless
        return byte_table(self.tokenizer.get_vocab(with_added_tokens=True), self.added)


def _config(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}", hint=_HINT) from None
    except ValueError as error:
        raise UserError(f"this file is not valid JSON: {error}", Location(str(path))) from None
    if not isinstance(config, dict):
        raise UserError("this file must be a JSON object", Location(str(path)), _HINT)
    return config


_HINT = "save the tokenizer with transformers: AutoTokenizer.from_pretrained(...).save_pretrained(...)"


def _text(value: object) -> str | None:
    """Text of a token, given as a string or as an object with `content`."""
    found = value.get("content") if isinstance(value, dict) else value
    return found if isinstance(found, str) and found else None


def _eos(names: Mapping[str, str], path: Path) -> str:
    if "eos_token" not in names:
        hint = 'without one the model never learns to stop: add "eos_token" to the file, or use a model that has one'
        raise UserError("this tokenizer has no eos_token", Location(str(path)), hint)
    return names["eos_token"]


def _eos_id(tokenizer: Any, eos: str, files: Mapping[str, Path]) -> int:
    eos_id: int | None = tokenizer.token_to_id(eos)
    if eos_id is None:
        raise UserError(f"eos_token {eos!r} is not a token of {FAST}", Location(str(files[CONFIG])), "take both files from the same model")
    return eos_id


def _template(config: Mapping[str, Any]) -> str | None:
    """The chat template of a configuration: a text, or several by name, of which `default` is used."""
    found = config.get("chat_template")
    if isinstance(found, list):
        found = next((item.get("template") for item in found if isinstance(item, dict) and item.get("name") == "default"), None)
    return found if isinstance(found, str) else None


def _tokenizer(path: Path) -> "Tokenizer":
    from tokenizers import Tokenizer

    if not path.is_file():
        raise UserError(f"{path.parent} contains no tokenizer: {FAST} is missing", hint=_HINT)
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises plain Exception for every error
        raise UserError(f"the tokenizers library cannot load this file: {error}", Location(str(path))) from None
    # A file may contain truncation and padding settings, which must not apply here.
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


_PROBE = "a"


def _around(tokenizer: "Tokenizer") -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Ids that the tokenizer's post-processor adds before and after a text."""
    bare = tokenizer.encode(_PROBE, add_special_tokens=False).ids
    whole = tokenizer.encode(_PROBE, add_special_tokens=True).ids
    start = next(start for start in range(len(whole)) if whole[start : start + len(bare)] == bare)
    return tuple(whole[:start]), tuple(whole[start + len(bare) :])


def _guard(tokenizer: "Tokenizer", eos: str) -> str:
    """A text after which the tokenizer does not prepend a space; empty if it never does, as in all byte-level tokenizers."""

    def begun(before: str) -> bool:
        """Whether the token after BEFORE begins with a space although the probe does not."""
        skipped = len(tokenizer.encode(before, add_special_tokens=False).tokens)
        return "".join(tokenizer.encode(before + _PROBE, add_special_tokens=False).tokens[skipped:]).startswith(("▁", "Ġ"))

    if not begun(""):
        return ""
    return next((guard for guard in (eos, "\n") if not begun(guard)), "")
