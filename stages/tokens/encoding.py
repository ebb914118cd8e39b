"""Rendered rows as token ids, many at once: each row is a list of pieces, and each token belongs to one of them."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from stages.rows.control_tokens import BREAK
from stages.rows.turns import Rendered
from stages.tokens.encoder import Array, Encoder

CONTEXT, ANSWER, END = 0, 1, 2
"""What a piece is: never an answer, an answer's text, or the end of its turn."""

_TEXT, _EOS, _FRONT, _BACK = 0, 1, 2, 3

Boundary = Literal["apart", "shift"]


@dataclass
class Pieces:
    """The pieces of several rows one after another, each a text or one of the tokenizer's own tokens."""

    texts: list[str] = field(default_factory=list)
    kinds: list[int] = field(default_factory=list)
    sources: list[int] = field(default_factory=list)
    """What each is made of: its text, the end-of-sequence token, or what the tokenizer puts in front or behind."""
    learned: list[bool] = field(default_factory=list)
    starts: list[int] = field(default_factory=list)
    """The first piece of each row."""
    fresh: list[bool] = field(default_factory=list)
    """Whether a piece begins a text of its own, and does not continue the one before it."""
    broken: list[bool] = field(default_factory=list)
    """Whether a piece must not be encoded together with the one before it: together they would be a control token."""

    def add_row(self, rendered: Rendered, encoder: Encoder, front: bool) -> None:
        """The pieces of a row for a causal model: everything in its order."""
        self._begin(front)
        for turn in rendered.turns:
            self._add(turn.before, CONTEXT)
            self._add_answer(turn.answer, turn.end, turn.learned, encoder)
        if rendered.after:
            self._add(rendered.after, CONTEXT)

    def add_question(self, rendered: Rendered, encoder: Encoder, front: bool) -> None:
        """The pieces before the last answer of a row."""
        self._begin(front)
        for turn in rendered.turns[:-1]:
            self._add(turn.before, CONTEXT)
            self._add_answer(turn.answer, turn.end, False, encoder)
        self._add(rendered.turns[-1].before, CONTEXT)

    def add_pair(self, rendered: Rendered, encoder: Encoder, front: bool) -> None:
        """The pieces of a row for an encoder-decoder model: all that comes before the last answer, closed; then the answer by itself."""
        self.add_source(rendered, front)
        last = rendered.turns[-1]
        self._add_answer(last.answer, last.end, last.learned, encoder, fresh=True)

    def add_source(self, rendered: Rendered, front: bool) -> None:
        """The pieces of an encoder's input."""
        self._begin(front)
        earlier = "".join(turn.before + turn.answer + (turn.end or "") for turn in rendered.turns[:-1])
        self._add(earlier + rendered.turns[-1].before, CONTEXT)
        self._add("", CONTEXT, _BACK)

    def _begin(self, front: bool) -> None:
        self.starts.append(len(self.texts))
        if front:
            self._add("", CONTEXT, _FRONT)

    def _add_answer(self, answer: str, end: str | None, learned: bool, encoder: Encoder, fresh: bool = False) -> None:
        self._add(answer if end is not None else answer.removesuffix(encoder.eos), ANSWER, learned=learned, fresh=fresh)
        self._add(end or "", END, _TEXT if end else _EOS, learned)

    def _add(self, text: str, kind: int, source: int = _TEXT, learned: bool = False, fresh: bool = False) -> None:
        for number, part in enumerate(text.split(BREAK) if BREAK in text else (text,)):
            self.texts.append(part)
            self.kinds.append(kind)
            self.sources.append(source)
            self.learned.append(learned)
            self.fresh.append(fresh and not number)
            self.broken.append(number > 0)


def encode(pieces: Pieces, encoder: Encoder, boundary: Boundary = "apart") -> tuple[Array, Array]:
    """Token ids of all PIECES one after another (int32), and how many each has (int64).

    APART: each piece is encoded by itself. SHIFT: pieces that follow each other are encoded together, and a token that begins in one
    belongs to it, so that one that the end of a prompt and the beginning of an answer share is the prompt's.
    """
    sources = np.array(pieces.sources, np.uint8)
    texts = np.flatnonzero((sources == _TEXT) & np.array([bool(text) for text in pieces.texts], bool))
    inside = _inside(pieces, texts)
    join = _together if boundary == "shift" else _apart
    text_ids, text_lengths = join(
        [pieces.texts[number] for number in texts.tolist()], texts, inside, np.array(pieces.broken, bool)[texts], encoder
    )
    own = {_EOS: (encoder.eos_id,), _FRONT: encoder.prefix, _BACK: encoder.suffix or (encoder.eos_id,)}
    lengths = np.zeros(len(sources), np.int64)
    lengths[texts] = text_lengths
    for source, ids in own.items():
        lengths[sources == source] = len(ids)
    found = np.empty(int(lengths.sum()), np.int32)
    found[np.repeat(sources == _TEXT, lengths)] = text_ids
    begins = np.cumsum(lengths) - lengths
    for source, ids in own.items():
        for offset, token in enumerate(ids):
            found[begins[sources == source] + offset] = token
    return found, lengths


def _inside(pieces: Pieces, texts: Array) -> Array:
    """Which of the pieces numbered TEXTS continue a text of the same row."""
    first = np.zeros(len(pieces.texts) + 1, np.int64)
    first[pieces.starts] = 1
    row = np.cumsum(first)[texts]
    continued = np.zeros(len(texts), bool)
    continued[1:] = row[1:] == row[:-1]
    return continued & ~np.array(pieces.fresh, bool)[texts]


def _apart(texts: Sequence[str], numbers: Array, inside: Array, broken: Array, encoder: Encoder) -> tuple[Array, Array]:
    if not encoder.guard or not inside.any():
        return encoder.encode_flat(texts)
    rows: list[list[int]] = [[]] * len(texts)
    for continued in (False, True):
        chosen = np.flatnonzero(inside == continued)
        for number, ids in zip(chosen, encoder.encode([texts[number] for number in chosen.tolist()], inside=continued), strict=True):
            rows[number] = ids
    lengths = np.array([len(row) for row in rows], np.int64)
    return np.fromiter((token for row in rows for token in row), np.int32, int(lengths.sum())), lengths


def _together(texts: Sequence[str], numbers: Array, inside: Array, broken: Array, encoder: Encoder) -> tuple[Array, Array]:
    """As `_apart`, but pieces without a token of the tokenizer's own between them are one text."""
    joined = inside.copy()
    joined[1:] &= numbers[1:] == numbers[:-1] + 1
    joined &= ~broken
    begins = np.flatnonzero(~joined)
    edges = [*begins.tolist(), len(texts)]
    runs = ["".join(texts[begin:end]) for begin, end in itertools.pairwise(edges)]
    if encoder.lossless:
        return _by_bytes(texts, runs, encoder)
    ids, lengths, starts = _guarded_runs(runs, inside[begins], encoder)
    sizes = np.array([len(text) for text in texts], np.int64)
    # Where each run begins in the text of all runs.
    offsets = np.cumsum([0, *map(len, runs)])[:-1]
    positions = np.maximum.accumulate(np.repeat(offsets, lengths) + starts) if len(starts) else starts
    owner = np.searchsorted(np.cumsum(sizes), positions, side="right")
    return ids, np.bincount(np.minimum(owner, len(texts) - 1), minlength=len(texts))


def _by_bytes(texts: Sequence[str], runs: Sequence[str], encoder: Encoder) -> tuple[Array, Array]:
    """Tokens of byte-level tokenizers are found by their bytes, which follow each other without gaps."""
    ids, _ = encoder.encode_flat(runs)
    _, begins = encoder.bytes_of
    widths = begins[ids + 1] - begins[ids]
    sizes = np.array([len(text.encode()) for text in texts], np.int64)
    owner = np.searchsorted(np.cumsum(sizes), np.cumsum(widths) - widths, side="right")
    return ids, np.bincount(np.minimum(owner, len(texts) - 1), minlength=len(texts)) if len(texts) else sizes


def _guarded_runs(runs: Sequence[str], inside: Array, encoder: Encoder) -> tuple[Array, Array, Array]:
    """Ids, lengths and starts of RUNS; those that continue a text begin without a space of the tokenizer's own."""
    guard = encoder.guard
    if not guard or not inside.any():
        return encoder.encode_with_starts(runs)
    guarded = [guard + run if continued else run for run, continued in zip(runs, inside, strict=True)]
    ids, lengths, starts = encoder.encode_with_starts(guarded)
    shift = np.repeat(np.where(inside, len(guard), 0), lengths)
    kept = starts >= shift
    row = np.repeat(np.arange(len(runs)), lengths)
    return ids[kept], np.bincount(row[kept], minlength=len(runs)), (starts - shift)[kept]
