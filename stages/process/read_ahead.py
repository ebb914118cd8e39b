"""Prefetching: another thread works one item ahead, so that pipeline stages overlap."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def ahead(function: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    """FUNCTION of each of ITEMS, in order; a thread computes the next result while the caller uses the current one.

    At most two items are held. It helps only if FUNCTION releases the GIL, as tokenizers do.
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
