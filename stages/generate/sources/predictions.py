"""A model's answers to the test rows of a task, as rows for a judge."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar, Literal

from engine.core.errors import Location, UserError
from engine.core.part import Name, recipe
from stages.generate.selection import Located, Selection
from stages.generate.sources.task import CARRIED
from stages.rows.jsonl import read_objects
from stages.rows.prediction import Prediction
from stages.rows.predictions import located_predictions

COLUMNS = ("id", "prompt", "reference", "references", "prediction", "finish_reason", "fields")
"""Columns of every row: id, prompt and reference of the test row, the list of all its references, the answer, its finish reason, and
the carried columns of the task."""


class Predictions(Selection):
    """A file of predictions and the test rows behind them; compiling wires both."""

    without_rows: ClassVar[str] = "the judge has scored no answer"

    kind: Literal["predictions"] = "predictions"
    task: Name = recipe(description="The task that was answered.")

    def group_column(self) -> str | None:
        """None: answers are independent."""
        return "id"

    def known_columns(self) -> tuple[str, ...] | None:
        """The columns of a prediction."""
        return COLUMNS

    def read(self, files: Sequence[Path]) -> Iterator[Located]:
        """Each answer in FILES[0] with the carried columns of its row in the other FILES; raises UserError if that row is missing."""
        answers, *asked = files
        for where, one, references, carried in with_rows(answers, self.task, asked):
            values = (one.id, one.prompt, one.reference, references, one.answer, one.finish_reason, carried)
            yield where, dict(zip(COLUMNS, values, strict=True))


def with_rows(answers: Path, task: str, asked: Sequence[Path]) -> Iterator[tuple[Location, Prediction, list[str], object]]:
    """Each answer to TASK with its line, its references, and the carried columns of its row in the files ASKED.

    Raises UserError for an answer to none of these rows.
    """
    carried = {str(row["id"]): row.get(CARRIED, {}) for path in asked for _, row in read_objects(path)}
    for where, one in located_predictions(answers, task):
        if one.id not in carried:
            what = f"this answer belongs to row {one.id}, which is not in {' or '.join(map(str, asked))}"
            raise UserError(what, where, "build the predictions again")
        references = list(one.references) or [text for text in (one.reference,) if text is not None]
        yield where, one, references, carried[one.id]
