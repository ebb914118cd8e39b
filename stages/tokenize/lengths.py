"""What is made of a row that is too long: shortened on one side, or cut into several rows."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from stages.tokens.encoder import Array
from stages.tokens.encoding import ANSWER, CONTEXT, END


@dataclass(frozen=True)
class Tokenized:
    """One row's tokens, and for each what it is, whether it is learned, and which turn it belongs to."""

    ids: Array
    kinds: Array
    supervised: Array
    turns: Array
    source: int = 0
    """Tokens of the encoder's input, for encoder-decoder models."""

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, chosen: slice | Array) -> Self:
        """The tokens that are CHOSEN."""
        return replace(self, ids=self.ids[chosen], kinds=self.kinds[chosen], supervised=self.supervised[chosen], turns=self.turns[chosen])

    def answers(self) -> Iterator[tuple[int, int, int]]:
        """Of each learned turn where the answer begins, where its end token does, and where the turn is over."""
        for turn in np.unique(self.turns[(self.kinds == END) & (self.supervised == 1)]):
            end = np.flatnonzero((self.turns == turn) & (self.kinds == END))
            answer = np.flatnonzero((self.turns == turn) & (self.kinds == ANSWER))
            yield int(answer[0] if len(answer) else end[0]), int(end[0]), int(end[-1]) + 1


def without_remainder(row: Tokenized) -> Tokenized:
    """ROW without what follows its last turn, from which nothing is learned; a row of the full mask has it learned, and stays."""
    last = np.flatnonzero((row.kinds != CONTEXT) | (row.supervised == 1))
    return row.take(slice(0, int(last[-1]) + 1)) if len(last) else row


def cut_prompt(row: Tokenized, limit: int, kept: int) -> Tokenized | str:
    """ROW without as much of its beginning, KEPT tokens aside, as brings it down to LIMIT; or why that cannot be.

    An answer of an earlier turn that is cut into is not learned any more.
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
    """ROW without as much of its last answers as brings it down to LIMIT, the last one that is left closed by its end token."""
    row = without_remainder(row)
    for begin, end, over in reversed(list(row.answers())):
        if over <= limit:
            return row.take(slice(0, over))
        if begin + 1 + over - end <= limit:
            room = limit - (over - end)
            return row.take(np.concatenate([np.arange(room), np.arange(end, over)]))
    return "prompt longer than max_length"


def cut_up(row: Tokenized, limit: int) -> Iterator[Tokenized]:
    """ROW as several rows of at most LIMIT tokens, cut after a turn where one ends in reach, else anywhere but before an end token.

    Where a turn is cut, the next row begins with the token before the cut, not learned there: each token is learned once, after one
    that it follows.
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
    """Input and labels of an encoder-decoder model in one row, cut at the input's beginning and before the labels' end."""
    excess = max(len(source) - longest_source, 0)
    source = source.take(np.concatenate([np.arange(kept), np.arange(kept + excess, len(source))]))
    if len(target) > longest_target:
        ends = np.flatnonzero(target.kinds == END)
        target = target.take(np.concatenate([np.arange(longest_target - len(ends)), ends]))
    joined = {name: np.concatenate([getattr(source, name), getattr(target, name)]) for name in ("ids", "kinds", "supervised", "turns")}
    return Tokenized(**joined, source=len(source))
