"""Work that another thread does one item ahead, so that it overlaps with what comes before and after it."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def ahead(function: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    """FUNCTION of each of ITEMS, in their order: while the caller works on one result, a thread computes the next.

    At most two items are held. It is of use where FUNCTION leaves Python's lock, as tokenizers do.
    """
    with ThreadPoolExecutor(1) as pool:
        waiting: Future[R] | None = None
        for item in items:
            coming = pool.submit(function, item)
            if waiting is not None:
                yield waiting.result()
            waiting = coming
        if waiting is not None:
            yield waiting.result()
