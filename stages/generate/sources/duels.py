"""Two models' answers to the same rows, each pair in both orders, as rows for a judge."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar, Literal

from engine.core.part import Name, recipe
from stages.generate.selection import Located, Selection
from stages.generate.sources.predictions import with_rows
from stages.rows.predictions import located_predictions

COLUMNS = ("id", "ours", "prompt", "reference", "references", "first", "second", "first_finish_reason", "second_finish_reason", "fields")
"""Columns of every row: id of the test row, which of both answers is ours (`first` or `second`), prompt, reference and the list of all
references, both answers and why they ended, and the carried columns of the task."""


class Duels(Selection):
    """Two files of predictions and the test rows behind them; compiling wires all three."""

    without_rows: ClassVar[str] = "the judge has compared no answers"
    may_be_empty: ClassVar[bool] = True  # equal answers are ties

    kind: Literal["duels"] = "duels"
    task: Name = recipe(description="The task that was answered.")

    def group_column(self) -> str | None:
        """`id`: rows are independent."""
        return "id"

    def known_columns(self) -> tuple[str, ...] | None:
        """The columns of two answers."""
        return COLUMNS

    def read(self, files: Sequence[Path]) -> Iterator[Located]:
        """Both orders of every two answers, FILES[0] ours and FILES[1] theirs, that differ; the judge need not see equal ones.

        FILES[2] has the test rows. Raises UserError for an answer to none of them.
        """
        ours, theirs, asked = files
        others = {one.id: one for _, one in located_predictions(theirs, self.task)}
        for where, one, references, carried in with_rows(ours, self.task, [asked]):
            other = others.get(one.id)
            if other is None or (one.answer, one.finish_reason) == (other.answer, other.finish_reason):
                continue
            for place, first, second in (("first", one, other), ("second", other, one)):
                answers = (first.answer, second.answer, first.finish_reason, second.finish_reason)
                values = (one.id, place, one.prompt, one.reference, references, *answers, carried)
                yield where, dict(zip(COLUMNS, values, strict=True))
