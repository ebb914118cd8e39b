"""How the rows of a training are divided: into global batches, over processes, and into micro-batches."""

from collections.abc import Sequence
from dataclasses import dataclass

from stages.common.tokens import Array
from stages.train import GlobalBatch


def global_batches(lengths: Array, batch: GlobalBatch) -> list[range]:
    """The positions that each optimizer step learns from, in order; every position is in exactly one, and only the last may be smaller.

    LENGTHS: tokens of each row, int64 [rows].
    """
    if batch.tokens is None:
        return [range(start, min(start + batch.rows, len(lengths))) for start in range(0, len(lengths), batch.rows)]
    found, start, held = [], 0, 0
    for position, length in enumerate(lengths.tolist()):
        if position > start and held + length > batch.tokens:
            found.append(range(start, position))
            start, held = position, 0
        held += length
    return [*found, range(start, len(lengths))] if len(lengths) else found


@dataclass(frozen=True)
class Share:
    """One of COUNT processes, number INDEX."""

    count: int = 1
    index: int = 0

    def of(self, positions: Sequence[int]) -> Sequence[int]:
        """This process's positions: consecutive ones, as many as the others' or one fewer."""
        start, end = (len(positions) * number // self.count for number in (self.index, self.index + 1))
        return positions[start:end]

    def largest(self, positions: Sequence[int]) -> int:
        """Positions of the process that has most."""
        return -(-len(positions) // self.count)


def micro_batches(positions: Sequence[int], share: Share, micro_rows: int | None) -> list[Sequence[int]]:
    """The micro-batches in which a process computes its share of one global batch.

    All processes have the same number of them, since each takes part in the others' communication: the last may be empty.
    """
    largest = share.largest(positions)
    size = min(micro_rows or largest, largest)
    mine = share.of(positions)
    return [mine[start : start + size] for start in range(0, largest, size)]
