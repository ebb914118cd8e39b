"""Divides a global batch over processes and into micro-batches, without losing or repeating rows."""

from collections.abc import Sequence
from dataclasses import dataclass

from stages.train.batching.layout import Layout


@dataclass(frozen=True)
class Share:
    """Process INDEX of COUNT processes."""

    count: int = 1
    index: int = 0


@dataclass(frozen=True)
class Bound:
    """Maximum size of a micro-batch: rows of the tensors (bins, if packed), and tokens including padding."""

    rows: int | None = None
    tokens: int | None = None


def micro_batches(layout: Layout, lengths: Sequence[int], share: Share, bound: Bound) -> list[list[int]]:
    """The micro-batches of one process, as indices of the rows with these LENGTHS, which are one global batch.

    All processes have the same number of micro-batches, because communication is collective; the last may be empty.
    Neighbours go to different processes, so that concurrent micro-batches have similar lengths.
    """
    chunks = _chunks(layout, lengths, share.count, bound)
    mine = chunks[share.index :: share.count]
    return mine + [[]] * (-(-len(chunks) // share.count) - len(mine))


def _chunks(layout: Layout, lengths: Sequence[int], processes: int, bound: Bound) -> list[list[int]]:
    """The micro-batches of all processes; rows within each are in the mixture's order."""
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
    # With all rows in one micro-batch, the order of summation is the same for all layouts.
    return [sorted(chunk) for chunk in chunks]


def _arranged(layout: Layout, lengths: Sequence[int]) -> list[int]:
    """The rows in the order in which they are cut into micro-batches."""
    if not layout.grouped:
        return list(range(len(lengths)))
    # Longest first: the first micro-batch needs the most memory, so out-of-memory errors occur at once.
    return sorted(range(len(lengths)), key=lambda number: -lengths[number])
