"""Encodes rendered rows in bulk: each row is a list of pieces, and each token belongs to one piece."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from stages.rows.turns import BREAK, Rendered
from stages.tokens.encoder import Array, Encoder

CONTEXT, ANSWER, END = 0, 1, 2
"""Kind of a piece: context (never an answer), an answer's text, or the end of its turn."""

_TEXT, _EOS, _FRONT, _BACK = 0, 1, 2, 3

Boundary = Literal["apart", "shift"]


@dataclass
class Pieces:
    """Pieces of several rows, concatenated; each is a text or a special token."""

    texts: list[str] = field(default_factory=list)
    kinds: list[int] = field(default_factory=list)
    sources: list[int] = field(default_factory=list)
    """Content of each: its text, the end-of-sequence token, or the tokens that the tokenizer adds before or after a text."""
    learned: list[bool] = field(default_factory=list)
    starts: list[int] = field(default_factory=list)
    """Index of the first piece of each row."""
    fresh: list[bool] = field(default_factory=list)
    """Whether a piece starts a new text instead of continuing the previous one."""
    broken: list[bool] = field(default_factory=list)
    """Whether a piece must be encoded separately from the previous one: together they would form a control token."""

    def add_row(self, rendered: Rendered, encoder: Encoder, front: bool) -> None:
        """Add a row for a causal model: all pieces in order."""
        self._begin(front)
        for turn in rendered.turns:
            self._add(turn.before, CONTEXT)
            self._add_answer(turn.answer, turn.end, turn.learned, encoder)
        if rendered.after:
            self._add(rendered.after, CONTEXT)

    def add_question(self, rendered: Rendered, encoder: Encoder, front: bool) -> None:
        """Add the pieces before a row's last answer."""
        self._begin(front)
        for turn in rendered.turns[:-1]:
            self._add(turn.before, CONTEXT)
            self._add_answer(turn.answer, turn.end, False, encoder)
        self._add(rendered.turns[-1].before, CONTEXT)

    def add_pair(self, rendered: Rendered, encoder: Encoder, front: bool) -> None:
        """Add a row for an encoder-decoder model: everything before the last answer, with its end token, then the answer."""
        self.add_source(rendered, front)
        last = rendered.turns[-1]
        self._add_answer(last.answer, last.end, last.learned, encoder, fresh=True)

    def add_source(self, rendered: Rendered, front: bool) -> None:
        """Add an encoder's input."""
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
    """Token ids of all PIECES, concatenated (int32 [tokens]), and the number of tokens of each (int64 [pieces]).

    APART: each piece is encoded separately. SHIFT: consecutive pieces are encoded together, and a token belongs to the piece in which it
    starts, so a token that spans the end of a prompt and the beginning of an answer belongs to the prompt.
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
    """Which of the pieces numbered TEXTS continue a text of the same row, bool [texts]."""
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
    """Like `_apart`, but pieces without a special token between them are encoded as one text."""
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
    # Offset of each run in the concatenated text.
    offsets = np.cumsum([0, *map(len, runs)])[:-1]
    positions = np.maximum.accumulate(np.repeat(offsets, lengths) + starts) if len(starts) else starts
    owner = np.searchsorted(np.cumsum(sizes), positions, side="right")
    return ids, np.bincount(np.minimum(owner, len(texts) - 1), minlength=len(texts))


def _by_bytes(texts: Sequence[str], runs: Sequence[str], encoder: Encoder) -> tuple[Array, Array]:
    """Assign the tokens of byte-level tokenizers by their bytes, which are contiguous."""
    ids, _ = encoder.encode_flat(runs)
    _, begins = encoder.bytes_of
    widths = begins[ids + 1] - begins[ids]
    sizes = np.array([len(text.encode()) for text in texts], np.int64)
    owner = np.searchsorted(np.cumsum(sizes), np.cumsum(widths) - widths, side="right")
    return ids, np.bincount(np.minimum(owner, len(texts) - 1), minlength=len(texts)) if len(texts) else sizes


def _guarded_runs(runs: Sequence[str], inside: Array, encoder: Encoder) -> tuple[Array, Array, Array]:
    """Ids, lengths and character offsets of RUNS; continuations are encoded without a prepended space."""
    guard = encoder.guard
    if not guard or not inside.any():
        return encoder.encode_with_starts(runs)
    guarded = [guard + run if continued else run for run, continued in zip(runs, inside, strict=True)]
    ids, lengths, starts = encoder.encode_with_starts(guarded)
    shift = np.repeat(np.where(inside, len(guard), 0), lengths)
    kept = starts >= shift
    row = np.repeat(np.arange(len(runs)), lengths)
    return ids[kept], np.bincount(row[kept], minlength=len(runs)), (starts - shift)[kept]
