"""Completions that the source already holds."""

from collections.abc import Iterable, Iterator
from typing import Literal

from engine.errors import UserError, did_you_mean
from engine.part import Part, recipe
from stages.common.job import Job
from stages.common.jsonl import type_name
from stages.generate.question import Answer, Question, Tally


class Gold(Part):
    """A column of the source is the completion."""

    kind: Literal["gold"] = "gold"
    column: str = recipe(description="The column that holds the completion.", min_length=1)

    def columns(self) -> tuple[str, ...]:
        """The columns of a row that the answer depends on, beside the prompt."""
        return (self.column,)

    def answers(self, questions: Iterable[Question], job: Job, tally: Tally) -> Iterator[Answer]:
        """The completion of each row, empty where the column is null; raises UserError where it is missing or holds no text."""
        for question in questions:
            yield Answer(self._text(question))

    def _text(self, question: Question) -> str:
        row, where = question.row, question.where
        if self.column not in row:
            raise UserError(f"this row has no column '{self.column}'", where, did_you_mean(self.column, row))
        value = row[self.column]
        if value is None:
            return ""
        if isinstance(value, str):
            return value
        if isinstance(value, int | float) and not isinstance(value, bool):
            return str(value)
        raise UserError(f"column '{self.column}' holds {type_name(value)}, not text", where, "give a column with text or a number")
