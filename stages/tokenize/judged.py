"""Converts answers that were judged alone to arrays, with the mark of each: whether it is desirable."""

from collections.abc import Iterator, Sequence

import numpy as np

from engine.core.errors import UserError
from stages.rows.rows import Row
from stages.rows.turns import Rendered
from stages.tokenize.batch import Batch
from stages.tokenize.tokenization import Part, Tokenization
from stages.tokens.encoder import Array


class JudgedTokenization(Tokenization):
    """Converts the judged answers of one split to arrays."""

    _pending: tuple[bool, ...] = ()
    """Whether the rows that are yielded next are desirable."""

    def rendered(self, rows: Sequence[Row]) -> list[tuple[Row, Rendered]]:
        """The rendered text of each of ROWS; raises UserError for a row without a judgement."""
        if unjudged := next((row for row in rows if row.desirable is None), None):
            hint = 'give the task labels: layout = "unpaired_preference", with a column label; or train with objective = "supervised"'
            raise UserError(f"row {unjudged.id} does not say whether its answer is desirable", unjudged.where, hint)
        return super().rendered(rows)

    def marks(self, rows: int) -> dict[str, Array]:
        """For the ROWS rows yielded last, under `desirable` 1 for desirable and 0 for undesirable answers, uint8 [rows]."""
        assert len(self._pending) == rows
        self.counts.desirable += sum(self._pending)
        self.counts.undesirable += rows - sum(self._pending)
        return {"desirable": np.array(self._pending, np.uint8)}

    def _whole(self, batch: Batch, first: int, last: int, keep: Array, lengths: Array) -> Iterator[Part]:
        self._pending = tuple(bool(batch.rows[number].desirable) for number in range(first, last) if keep[number])
        yield from super()._whole(batch, first, last, keep, lengths)

    def _cut(self, batch: Batch, number: int) -> Iterator[Part]:
        self._pending = (bool(batch.rows[number].desirable),)
        yield from super()._cut(batch, number)
