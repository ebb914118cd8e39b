"""Rows that are a model's answers to the held-out rows of a task: what a judge is asked about."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from engine.core.errors import UserError
from engine.core.part import Name, recipe
from stages.generate.selection import Located, Selection
from stages.generate.sources.task import CARRIED
from stages.rows.jsonl import read_objects
from stages.rows.predictions import located_predictions

COLUMNS = ("id", "prompt", "reference", "references", "prediction", "finish_reason", "fields")
"""What every row has: id, prompt and reference of the row that was asked, the list of all its references, the answer, how that ended,
and what the task carries."""


class Predictions(Selection):
    """A file of predictions, and the rows that were asked; compiling wires both."""

    kind: Literal["predictions"] = "predictions"
    task: Name = recipe(description="The task that was asked.")

    def group_column(self) -> str | None:
        """Each answer by itself."""
        return "id"

    def known_columns(self) -> tuple[str, ...] | None:
        """Those of a prediction."""
        return COLUMNS

    def read(self, files: Sequence[Path]) -> Iterator[Located]:
        """Each answer of the first of FILES, with what its row in the second one carries; raises UserError where it has no row there."""
        answers, asked = files
        carried = {str(row["id"]): row.get(CARRIED, {}) for _, row in read_objects(asked)}
        for where, one in located_predictions(answers, self.task):
            if one.id not in carried:
                raise UserError(f"this answer is to row {one.id}, which {asked} does not hold", where, "build the predictions again")
            references = list(one.references) or [text for text in (one.reference,) if text is not None]
            values = (one.id, one.prompt, one.reference, references, one.answer, one.finish_reason, carried[one.id])
            yield where, dict(zip(COLUMNS, values, strict=True))
