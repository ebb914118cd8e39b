"""A tokenizer read from its files: the one way in which rows and questions become token ids."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from engine.core.errors import Location, UserError
from stages.tokens.losslessness import byte_table, is_lossless

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Array = np.ndarray[Any, np.dtype[Any]]

FAST = "tokenizer.json"
CONFIG = "tokenizer_config.json"
TEMPLATE = "chat_template.jinja"


@dataclass(frozen=True)
class Encoder:
    """Encodes text without adding special tokens; special tokens that stand in the text are recognised.

    Through the tokenizers library alone: transformers may rebuild a tokenizer by its class, and then encodes a text otherwise than
    tokenizer.json says. Only a tokenizer without that file, one written in Python, is opened through transformers.
    """

    tokenizer: Any
    """A tokenizer of the tokenizers library, or one that is asked the same way."""
    eos: str
    eos_id: int
    names: Mapping[str, str] = field(default_factory=dict)
    """The special tokens by their names, such as `bos_token`; chat templates use them."""
    template: str | None = None
    """The chat template among the tokenizer's files."""
    added: tuple[str, ...] = ()
    """Tokens that are found in a text before anything else happens to it: special ones, and others that were added."""
    special: tuple[str, ...] = ()
    """Those of them that are special: they steer the model, and are no text."""
    prefix: tuple[int, ...] = ()
    """What the tokenizer itself puts in front of a text, such as a begin-of-sequence token."""
    suffix: tuple[int, ...] = ()
    """What it puts behind a text, such as T5's end of the encoder's input."""
    lossless: bool = False
    """Whether every text must decode back to itself: byte-level tokenizers that change nothing before encoding."""
    guard: str = ""
    """Text to encode in front of what continues a text, for tokenizers that would begin it with a space of their own."""

    @classmethod
    def open(cls, files: Mapping[str, Path]) -> Self:
        """The tokenizer in FILES, by name; raises UserError where they are unusable."""
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
        # It would only trim the offsets of tokens: nothing is added to texts here.
        opened.post_processor = None
        return cls(opened, eos, _eos_id(opened, eos, files), names, template, added, special, *around, is_lossless(description), guard)

    @property
    def has_offsets(self) -> bool:
        """Whether it can say where in a text its tokens lie."""
        return hasattr(self.tokenizer, "encode_batch")

    @property
    def bos(self) -> str | None:
        """The text of the begin-of-sequence token, where there is one."""
        return self.names.get("bos_token")

    def size(self) -> int:
        """How many rows the embeddings of a model need for these tokens."""
        return max(self.tokenizer.get_vocab(with_added_tokens=True).values()) + 1

    def encode(self, texts: Sequence[str], inside: bool = False) -> list[list[int]]:
        """Token ids of each text; INSIDE: each continues a text that is encoded apart."""
        if not inside or not self.guard:
            return [encoding.ids for encoding in self.tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)]
        guarded = self.tokenizer.encode_batch_fast([self.guard + text for text in texts], add_special_tokens=False)
        return [self._unguarded(encoding.ids, text) for encoding, text in zip(guarded, texts, strict=True)]

    def _unguarded(self, ids: list[int], text: str) -> list[int]:
        size = len(self._guard_ids)
        # Where the guard has merged with the text, there is no better way than the text by itself.
        return ids[size:] if ids[:size] == self._guard_ids else self.encode([text])[0]

    def encode_flat(self, texts: Sequence[str], inside: bool = False) -> tuple[Array, Array]:
        """Token ids of all TEXTS one after another (int32), and how many each has (int64)."""
        rows = self.encode(texts, inside)
        lengths = np.fromiter(map(len, rows), np.int64, len(rows))
        return np.fromiter(chain.from_iterable(rows), np.int32, int(lengths.sum())), lengths

    def encode_with_starts(self, texts: Sequence[str]) -> tuple[Array, Array, Array]:
        """As `encode_flat`, and the character of its text at which each token starts (int64)."""
        encodings = self.tokenizer.encode_batch(list(texts), add_special_tokens=False)
        lengths = np.fromiter(map(len, encodings), np.int64, len(encodings))
        total = int(lengths.sum())
        ids = np.fromiter(chain.from_iterable(encoding.ids for encoding in encodings), np.int32, total)
        starts = np.fromiter((start for encoding in encodings for start, _ in encoding.offsets), np.int64, total)
        return ids, lengths, starts

    def decode(self, rows: Iterable[Sequence[int]], inside: bool = False) -> list[str]:
        """The text of each row of ids, special tokens included; INSIDE: each continues a text."""
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
        """The bytes of every token one after another (uint8), and where each token's begin (int64 [tokens + 1]); lossless ones only."""
        assert self.lossless
        return byte_table(self.tokenizer.get_vocab(with_added_tokens=True), self.added)


def _config(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}", hint=_HINT) from None
    except ValueError as error:
        raise UserError(f"this is no JSON: {error}", Location(str(path))) from None
    if not isinstance(config, dict):
        raise UserError("this is no JSON object", Location(str(path)), _HINT)
    return config


_HINT = "save the tokenizer with transformers: AutoTokenizer.from_pretrained(...).save_pretrained(...)"


def _text(value: object) -> str | None:
    """The text of a token, which stands as itself or, with its properties, under `content`."""
    found = value.get("content") if isinstance(value, dict) else value
    return found if isinstance(found, str) and found else None


def _eos(names: Mapping[str, str], path: Path) -> str:
    if "eos_token" not in names:
        hint = 'without one the model never learns to stop; add "eos_token" to the file, or choose a model that has one'
        raise UserError("this tokenizer has no eos_token", Location(str(path)), hint)
    return names["eos_token"]


def _eos_id(tokenizer: Any, eos: str, files: Mapping[str, Path]) -> int:
    eos_id: int | None = tokenizer.token_to_id(eos)
    if eos_id is None:
        raise UserError(f"eos_token {eos!r} is no token of {FAST}", Location(str(files[CONFIG])), "take both files from one model")
    return eos_id


def _template(config: Mapping[str, Any]) -> str | None:
    """The chat template of a configuration: a text, or several of them by name, of which `default` is the one for chats."""
    found = config.get("chat_template")
    if isinstance(found, list):
        found = next((item.get("template") for item in found if isinstance(item, dict) and item.get("name") == "default"), None)
    return found if isinstance(found, str) else None


def _tokenizer(path: Path) -> "Tokenizer":
    from tokenizers import Tokenizer

    if not path.is_file():
        raise UserError(f"{path.parent} holds no tokenizer: it has no {FAST}", hint=_HINT)
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises plain Exception whatever is wrong
        raise UserError(f"this is no tokenizer that the tokenizers library reads: {error}", Location(str(path))) from None
    # A file may carry the limits it was last used with; they would cut and pad behind our back.
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


_PROBE = "a"


def _around(tokenizer: "Tokenizer") -> tuple[tuple[int, ...], tuple[int, ...]]:
    """What the tokenizer's post-processor puts in front of a text and behind it."""
    bare = tokenizer.encode(_PROBE, add_special_tokens=False).ids
    whole = tokenizer.encode(_PROBE, add_special_tokens=True).ids
    start = next(start for start in range(len(whole)) if whole[start : start + len(bare)] == bare)
    return tuple(whole[:start]), tuple(whole[start + len(bare) :])


def _guard(tokenizer: "Tokenizer", eos: str) -> str:
    """A text behind which no space is put that is not there; empty where none is put anyway, as in all byte-level tokenizers."""

    def begun(before: str) -> bool:
        """Whether the token after BEFORE begins with a space, which the probe does not."""
        skipped = len(tokenizer.encode(before, add_special_tokens=False).tokens)
        return "".join(tokenizer.encode(before + _PROBE, add_special_tokens=False).tokens[skipped:]).startswith(("▁", "Ġ"))

    if not begun(""):
        return ""
    return next((guard for guard in (eos, "\n") if not begun(guard)), "")
