"""What the ways of batching have in common: a global batch is divided into micro-batches, over devices; no row is lost or repeated."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from engine.part import Part


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


class Layout(Part):
    """How rows lie in a micro-batch; it decides speed and memory, not the gradient of the global batch."""

    flat: ClassVar[bool] = False
    """Whether rows lie one behind another, told apart by their position ids, and not one below another with padding."""

    def arranged(self, lengths: Sequence[int]) -> list[int]:
        """The rows of a global batch in the order in which micro-batches are cut from them."""
        return list(range(len(lengths)))

    def micro_batches(self, lengths: Sequence[int], share: Share, bound: Bound) -> list[list[int]]:
        """The micro-batches of one process, as numbers of the rows with these LENGTHS, which are one global batch.

        All processes have the same number of them, since each takes part in the others' communication: the last may be empty.
        Neighbours go to different processes, so that what is computed at one time is of about one length.
        """
        chunks = self._chunks(lengths, share.count, bound)
        if len(chunks) == 1:
            # Nothing to group: the order of the sum stays the mixture's.
            chunks = [list(range(len(lengths)))]
        mine = chunks[share.index :: share.count]
        return mine + [[]] * (-(-len(chunks) // share.count) - len(mine))

    def _chunks(self, lengths: Sequence[int], processes: int, bound: Bound) -> list[list[int]]:
        each = -(-len(lengths) // processes)
        rows = min(bound.rows or each, each)
        chunks: list[list[int]] = []
        longest = total = 0
        for number in self.arranged(lengths):
            longest, total = max(longest, lengths[number]), total + lengths[number]
            if chunks and len(chunks[-1]) < rows and self._fits(len(chunks[-1]) + 1, longest, total, bound.tokens):
                chunks[-1].append(number)
            else:
                chunks.append([number])
                longest = total = lengths[number]
        return chunks

    def _fits(self, rows: int, longest: int, total: int, tokens: int | None) -> bool:
        return tokens is None or (total if self.flat else rows * longest) <= tokens
