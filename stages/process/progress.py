"""Progress on stderr: a bar on a terminal, otherwise an occasional plain line."""

import re
import sys
import time
from collections.abc import Iterable, Iterator, Sized
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

DECIDES_NO_BYTES = True
"""Not part of a step's identity: what is shown of its progress does not affect results."""


T = TypeVar("T")

SECONDS_BETWEEN_LINES = 10.0
_OPEN: list[Any] = []
"""Bars whose lines have not ended."""
_LEFT = re.compile(r"(\d+(?::\d\d){1,2}) left$")


class Progress(Generic[T]):
    """Counts units of work, by iteration or by `update`; a context manager, iterable if created with items."""

    def __init__(self, items: Iterable[T], total: int | None, description: str, unit: str) -> None:
        self.done = 0
        self._items, self._total, self._description, self._unit = items, total, description, unit
        self._skipped = 0
        self._said: float | None = None
        self._started = time.monotonic()
        self._bar = _bar(total, description, unit) if sys.stderr.isatty() else None
        if self._bar is not None:
            _OPEN.append(self._bar)

    def __iter__(self) -> Iterator[T]:
        with self:
            for item in self._items:
                yield item
                self.update()

    def update(self, count: int = 1, note: str = "") -> None:
        """Add COUNT finished units; NOTE, such as the loss, is shown next to them."""
        self.done += count
        if self._bar is not None:
            self._bar.set_postfix_str(note, refresh=False)
            self._bar.update(count)
        elif time.monotonic() - (self._said or self._started) >= SECONDS_BETWEEN_LINES:
            self._say(note, self._left())

    def skip(self, count: int) -> None:
        """Add COUNT units that an earlier run finished; the pace is that of this run."""
        self.done += count
        self._skipped += count
        if self._bar is not None:
            self._bar.initial = self._bar.n = self.done
            self._bar.refresh()

    def _say(self, *notes: str) -> None:
        self._said = time.monotonic()
        total = "" if self._total is None else f"/{self._total}"
        said = [f"{self._description}: {self.done}{total} {self._unit}", *filter(None, notes)]
        print(", ".join(said), file=sys.stderr, flush=True)

    def _left(self) -> str:
        """How long the rest will take at the pace so far; empty if the total is not known, nothing is done yet, or all is."""
        here = self.done - self._skipped
        if not self._total or here <= 0 or self.done >= self._total:
            return ""
        minutes, seconds = divmod(round((time.monotonic() - self._started) / here * (self._total - self.done)), 60)
        hours, minutes = divmod(minutes, 60)
        return f"{hours}:{minutes:02}:{seconds:02} left" if hours else f"{minutes}:{seconds:02} left"

    def close(self) -> None:
        """Print the final state; work that finished before its first line stays silent."""
        if self._bar is not None:
            self._bar.close()
            if self._bar in _OPEN:
                _OPEN.remove(self._bar)
        elif self._said is not None:
            self._say()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, error_type: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def end_bars() -> None:
    """End the lines of all bars, such as those of work that an error has left: what is printed next has a line of its own."""
    while _OPEN:
        _OPEN.pop().close()


def seconds_left(line: str) -> float | None:
    """How long LINE of a step's progress says that the rest will take; None if it does not say so."""
    found = _LEFT.search(line)
    return sum(int(part) * 60**power for power, part in enumerate(reversed(found[1].split(":")))) if found else None


def _bar(total: int | None, description: str, unit: str) -> Any:
    from tqdm import tqdm

    return tqdm(total=total, desc=description, unit=f" {unit}", file=sys.stderr)


def progress(items: Iterable[T] | int, description: str, unit: str = "rows") -> Progress[T]:
    """Report progress while iterating over ITEMS, or over this many units of work counted by `update`."""
    if isinstance(items, int):
        return Progress((), items, description, unit)
    return Progress(items, len(items) if isinstance(items, Sized) else None, description, unit)
