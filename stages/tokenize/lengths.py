"""Truncates rows that are too long on one side, or splits them into several rows."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from stages.tokens.encoder import Array
from stages.tokens.encoding import ANSWER, CONTEXT, END


@dataclass(frozen=True)
class Tokenized:
    """One row's tokens, with kind, supervision and turn of each; arrays are [tokens]."""

    ids: Array
    kinds: Array
    supervised: Array
    turns: Array
    source: int = 0
    """Number of tokens of the encoder's input, for encoder-decoder models."""

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, chosen: slice | Array) -> Self:
        """The CHOSEN tokens."""
        return replace(self, ids=self.ids[chosen], kinds=self.kinds[chosen], supervised=self.supervised[chosen], turns=self.turns[chosen])

    def answers(self) -> Iterator[tuple[int, int, int]]:
        """For each supervised turn, the positions of its answer, of its end token, and of the turn's end."""
        for turn in np.unique(self.turns[(self.kinds != CONTEXT) & (self.supervised == 1)]):
            end = np.flatnonzero((self.turns == turn) & (self.kinds == END))
            answer = np.flatnonzero((self.turns == turn) & (self.kinds == ANSWER))
            yield int(answer[0] if len(answer) else end[0]), int(end[0]), int(end[-1]) + 1


def without_remainder(row: Tokenized) -> Tokenized:
    """ROW without the unsupervised tokens after its last turn; unchanged if they are supervised (full mask)."""
    last = np.flatnonzero((row.kinds != CONTEXT) | (row.supervised == 1))
    return row.take(slice(0, int(last[-1]) + 1)) if len(last) else row


def cut_prompt(row: Tokenized, limit: int, kept: int) -> Tokenized | str:
    """ROW truncated on the left to LIMIT tokens, keeping the first KEPT tokens; or the reason why that is impossible.

    A truncated answer of an earlier turn is no longer supervised.
    """
    row = without_remainder(row)
    excess = len(row) - limit
    *_, (begin, _, _) = row.answers()
    if excess > max(begin - kept, 0):
        return "completion longer than max_length"
    gone = np.zeros(len(row), bool)
    gone[kept : kept + max(excess, 0)] = True
    damaged = np.isin(row.turns, np.unique(row.turns[gone & (row.kinds != CONTEXT)])) & (row.kinds != CONTEXT)
    return replace(row, supervised=np.where(damaged, 0, row.supervised).astype(np.uint8)).take(~gone)


def cut_completion(row: Tokenized, limit: int) -> Tokenized | str:
    """ROW with its last answers truncated to LIMIT tokens, the last remaining one with its end token; or the reason why not."""
    row = without_remainder(row)
    for begin, end, over in reversed(list(row.answers())):
        if over <= limit:
            return row.take(slice(0, over))
        if begin + 1 + over - end <= limit:
            room = limit - (over - end)
            return row.take(np.concatenate([np.arange(room), np.arange(end, over)]))
    return "prompt longer than max_length"


def cut_up(row: Tokenized, limit: int) -> Iterator[Tokenized]:
    """ROW split into rows of at most LIMIT tokens, after a turn if possible, else anywhere except before an end token.

    If a turn is split, the next row begins with the token before the split, unsupervised: every token is supervised once, with its
    predecessor as context.
    """
    ends = np.flatnonzero((row.kinds == END) & np.append(row.turns[1:] != row.turns[:-1], True)) + 1
    start, context = 0, 0
    while start < len(row):
        stop = _cut(row, ends, start, start + limit - context)
        supervised = row.supervised.copy()
        supervised[start - context : start] = 0
        yield replace(row, supervised=supervised).take(slice(start - context, stop))
        start, context = stop, int(stop not in ends)


def _cut(row: Tokenized, ends: Array, start: int, furthest: int) -> int:
    if furthest >= len(row):
        return len(row)
    reached = ends[(ends > start) & (ends <= furthest)]
    if len(reached):
        return int(reached[-1])
    while row.kinds[furthest] == END and furthest > start + 1:
        furthest -= 1
    return furthest


def cut_pair(source: Tokenized, target: Tokenized, longest_source: int, longest_target: int, kept: int) -> Tokenized:
    """Input and labels of an encoder-decoder model in one row, with the input truncated on the left and the labels before their end."""
    excess = max(len(source) - longest_source, 0)
    source = source.take(np.concatenate([np.arange(kept), np.arange(kept + excess, len(source))]))
    if len(target) > longest_target:
        ends = np.flatnonzero(target.kinds == END)
        target = target.take(np.concatenate([np.arange(longest_target - len(ends)), ends]))
    joined = {name: np.concatenate([getattr(source, name), getattr(target, name)]) for name in ("ids", "kinds", "supervised", "turns")}
    return Tokenized(**joined, source=len(source))
