"""Progress on stderr: a bar on a terminal, otherwise an occasional plain line."""

import sys
import time
from collections.abc import Iterable, Iterator, Sized
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

DECIDES_NO_BYTES = True
"""Not part of a step's identity: what is shown of its progress does not affect results."""


T = TypeVar("T")

SECONDS_BETWEEN_LINES = 10.0


class Progress(Generic[T]):
    """Counts units of work, by iteration or by `update`; a context manager, iterable if created with items."""

    def __init__(self, items: Iterable[T], total: int | None, description: str, unit: str) -> None:
        self.done = 0
        self._items, self._total, self._description, self._unit = items, total, description, unit
        self._said: float | None = None
        self._started = time.monotonic()
        self._bar = _bar(total, description, unit) if sys.stderr.isatty() else None

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
            self._say(note)

    def skip(self, count: int) -> None:
        """Add COUNT units that an earlier run finished."""
        self.done += count
        if self._bar is not None:
            self._bar.update(count)

    def _say(self, note: str = "") -> None:
        self._said = time.monotonic()
        total = "" if self._total is None else f"/{self._total}"
        print(f"{self._description}: {self.done}{total} {self._unit}{f', {note}' if note else ''}", file=sys.stderr, flush=True)

    def close(self) -> None:
        """Print the final state; work that finished before its first line stays silent."""
        if self._bar is not None:
            self._bar.close()
        elif self._said is not None:
            self._say()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, error_type: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def _bar(total: int | None, description: str, unit: str) -> Any:
    from tqdm import tqdm

    return tqdm(total=total, desc=description, unit=f" {unit}", file=sys.stderr)


def progress(items: Iterable[T] | int, description: str, unit: str = "rows") -> Progress[T]:
    """Report progress while iterating over ITEMS, or over this many units of work counted by `update`."""
    if isinstance(items, int):
        return Progress((), items, description, unit)
    return Progress(items, len(items) if isinstance(items, Sized) else None, description, unit)
