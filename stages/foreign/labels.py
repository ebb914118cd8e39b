"""Labelled rows, and how two of the same row differ."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any


class NoRule(Exception):
    """The written rules do not have what a configuration asks for."""


@dataclass(frozen=True)
class Labelled:
    """The tokens of a row, and which of them are learned."""

    ids: list[int]
    learned: list[bool]
    cut: bool = False
    """Whether tokens were cut off."""

    def __post_init__(self) -> None:
        assert len(self.ids) == len(self.learned)


@dataclass(frozen=True)
class Dropped:
    """A row that is left out, and why."""

    why: str


Made = list[Labelled] | Dropped
"""What a row becomes: usually one labelled row; several if it is split."""


@dataclass
class Oddities:
    """How many rows of a set have something that is seldom meant."""

    rows: int = 0
    dropped: int = 0
    cut: int = 0
    nothing_learned: int = 0
    end_not_learned: int = 0
    bos_doubled: int = 0
    reasons: dict[str, int] = field(default_factory=dict)
    """Why rows were dropped."""

    def add(self, made: Made, ends: Sequence[int], bos: int | None) -> None:
        """Count what one row has become; ENDS: the tokens that end an answer."""
        self.rows += 1
        if isinstance(made, Dropped):
            self.dropped += 1
            self.reasons[made.why] = self.reasons.get(made.why, 0) + 1
            return
        self.cut += any(row.cut for row in made)
        for row in made:
            self.nothing_learned += not any(row.learned)
            self.bos_doubled += bos is not None and row.ids[:2] == [bos, bos]
        learns = any(any(row.learned) for row in made)
        self.end_not_learned += learns and not end_is_learned(made[-1], ends)

    def as_data(self) -> dict[str, Any]:
        return vars(self)


_NEAR = 4
"""How many learned tokens may follow the end token: templates write a line break or two behind it."""


def end_is_learned(row: Labelled, ends: Sequence[int]) -> bool:
    """Whether the last answer of ROW ends with a learned end token."""
    last = [token for token, learned in zip(row.ids, row.learned, strict=True) if learned][-_NEAR:]
    return any(token in ends for token in last)


def difference(theirs: Made, ours: Made, text: Any, ends: Sequence[int] = ()) -> str:
    """How two versions of a row differ, in words that equal ones share; empty if they do not.

    TEXT: tokens as text; ENDS: the tokens that end an answer.
    """
    if isinstance(theirs, Dropped) or isinstance(ours, Dropped):
        if isinstance(theirs, Dropped) and isinstance(ours, Dropped):
            return ""
        return f"left out there ({theirs.why})" if isinstance(theirs, Dropped) else f"left out here ({ours.why})"  # type: ignore[union-attr]
    if len(theirs) != len(ours):
        return f"{len(theirs)} rows there, {len(ours)} here"
    if len(theirs) > 1 and any(one.ids != other.ids for one, other in zip(theirs, ours, strict=True)):
        return f"{len(theirs)} pieces, which begin elsewhere"
    for one, other in zip(theirs, ours, strict=True):
        if one.ids == other.ids:
            more = _runs(one, [a and not b for a, b in zip(one.learned, other.learned, strict=True)], text)
            less = _runs(one, [b and not a for a, b in zip(one.learned, other.learned, strict=True)], text)
            parts = [f"learned only there: {more}" if more else "", f"learned only here: {less}" if less else ""]
            if found := "; ".join(part for part in parts if part):
                return found
            continue
        if one.cut or other.cut:
            return _cut_differently(one, other, ends)
        shorter = min(len(one.ids), len(other.ids))
        place = next((n for n in range(shorter) if one.ids[n] != other.ids[n]), shorter)
        if place == shorter:
            longer, where = (one, "there") if len(one.ids) > shorter else (other, "here")
            rest = longer.ids[shorter:]
            if len(rest) <= _NEAR:
                learned = "learned" if any(longer.learned[shorter:]) else "not learned"
                return f"more tokens at the end {where}: {_quoted(text(rest))} ({learned})"
            return f"cut here, or longer there, from token {place} on" if where == "there" else f"cut there, from token {place} on"
        there, here = (_quoted(text(row.ids[place : place + 3])) for row in (one, other))
        return f"other tokens from {place} on: {there} there, {here} here"
    return ""


def _cut_differently(one: Labelled, other: Labelled, ends: Sequence[int]) -> str:
    """How two rows differ of which one is cut at least: there (ONE) and here (OTHER)."""
    sides = {"there": one, "here": other}
    endless = [side for side, row in sides.items() if any(row.learned) and not end_is_learned(row, ends)]
    where = " and ".join(side for side, row in sides.items() if row.cut)
    return f"cut {where}" + (f"; {' and '.join(endless)} the answer has lost its end" if endless else "")


def _runs(row: Labelled, chosen: Sequence[bool], text: Any) -> str:
    """The chosen runs of tokens as text, equal ones once; long ones only counted."""
    runs: list[list[int]] = []
    for place, is_chosen in enumerate(chosen):
        if is_chosen and place and chosen[place - 1]:
            runs[-1].append(row.ids[place])
        elif is_chosen:
            runs.append([row.ids[place]])
    shown = [_quoted(text(run)) if len(run) <= _NEAR else "a longer text" for run in runs]
    return ", ".join(dict.fromkeys(shown))


def _quoted(text: str) -> str:
    return '"' + text.replace("\n", "⏎") + '"'
