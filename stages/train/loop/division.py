"""How a global batch is divided: over processes, and into micro-batches; no row is lost or repeated."""

from collections.abc import Sequence
from dataclasses import dataclass

from stages.train.batching.layout import Layout


@dataclass(frozen=True)
class Share:
    """One of COUNT processes, number INDEX."""

    count: int = 1
    index: int = 0


@dataclass(frozen=True)
class Bound:
    """What a device computes at once, at most: rows of the tensors (bins, where rows are packed), and tokens, padding included."""

    rows: int | None = None
    tokens: int | None = None


def micro_batches(layout: Layout, lengths: Sequence[int], share: Share, bound: Bound) -> list[list[int]]:
    """The micro-batches of one process, as numbers of the rows with these LENGTHS, which are one global batch.

    All processes have the same number of them, since each takes part in the others' communication: the last may be empty.
    Neighbours go to different processes, so that what is computed at one time is of about one length.
    """
    chunks = _chunks(layout, lengths, share.count, bound)
    mine = chunks[share.index :: share.count]
    return mine + [[]] * (-(-len(chunks) // share.count) - len(mine))


def _chunks(layout: Layout, lengths: Sequence[int], processes: int, bound: Bound) -> list[list[int]]:
    """The micro-batches of all processes; within each the rows are in the mixture's order."""
    each = -(-len(lengths) // processes)
    rows = min(bound.rows or each, each)
    chunks: list[list[int]] = []
    longest = total = 0
    for number in _arranged(layout, lengths):
        longest, total = max(longest, lengths[number]), total + lengths[number]
        area = total if layout.flat else (len(chunks[-1]) + 1 if chunks else 1) * longest
        if chunks and len(chunks[-1]) < rows and (bound.tokens is None or area <= bound.tokens):
            chunks[-1].append(number)
        else:
            chunks.append([number])
            longest = total = lengths[number]
    # A micro-batch that holds all rows sums them up as every other way of batching does.
    return [sorted(chunk) for chunk in chunks]


def _arranged(layout: Layout, lengths: Sequence[int]) -> list[int]:
    """The rows in the order in which micro-batches are cut from them."""
    if not layout.grouped:
        return list(range(len(lengths)))
    # The longest first: the first micro-batch then needs the most memory, so that what does not fit is known at once.
    return sorted(range(len(lengths)), key=lambda number: -lengths[number])
