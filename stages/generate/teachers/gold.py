"""Completions that the source already holds."""

from collections.abc import Iterable, Iterator
from typing import ClassVar, Literal

from engine.core.errors import Location, UserError, did_you_mean
from engine.core.part import Part, recipe
from stages.generate.question import Answer, Question, Tally
from stages.process.job import Job
from stages.rows.jsonl import type_name


class Gold(Part):
    """A column of the source is the completion; of a list the first is learned, and an evaluation takes each of them for right."""

    kind: Literal["gold"] = "gold"
    column: str = recipe(description="The column that holds the completion.", min_length=1)

    free: ClassVar[bool] = True
    """Whether asking costs nothing, so that a preview may ask."""

    def columns(self) -> tuple[str, ...]:
        """The columns of a row that the answer depends on, beside the prompt."""
        return (self.column,)

    def answers(self, questions: Iterable[Question], job: Job, tally: Tally) -> Iterator[Answer]:
        """The completion of each row, empty where the column is null; raises UserError where it is missing or holds no text."""
        for question in questions:
            texts = gold_texts(self._value(question), f"column '{self.column}'", question.where)
            yield Answer(texts[0] if texts else "", references=texts if len(texts) > 1 else ())

    def _value(self, question: Question) -> object:
        row, where = question.row, question.where
        if self.column not in row:
            raise UserError(f"this row has no column '{self.column}'", where, did_you_mean(self.column, row))
        return row[self.column]


def gold_texts(value: object, name: str, where: Location) -> tuple[str, ...]:
    """The right answers in VALUE, which NAME holds: none of null, one of a text or number, several of a list of these, equal ones once.

    Raises UserError, located at the row, for anything else.
    """
    if value is None:
        return ()
    if not isinstance(value, list | tuple):
        return (_text(value, name, where),)
    for number, item in enumerate(value, 1):
        if item is None or (isinstance(item, str) and not item.strip()):
            what = f"{name} holds a list, and number {number} of it is {'null' if item is None else 'blank'}"
            raise UserError(what, where, 'leave such ones out: columns = { references = "' + _SELECT + '" }')
    return tuple(dict.fromkeys(_text(item, f"number {number} of {name}", where) for number, item in enumerate(value, 1)))


_SELECT = "COLUMN | select | list"


def _text(value: object, name: str, where: Location) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    raise UserError(f"{name} holds {type_name(value)}, not text", where, "give a column with text or a number, or a list of these")
