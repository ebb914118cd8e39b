"""Completions from a column of the source."""

from collections.abc import Iterable, Iterator
from typing import ClassVar, Literal

from engine.core.errors import Location, UserError
from engine.core.part import Part, recipe
from stages.generate.question import Answer, Question, Tally
from stages.generate.selection import lacking
from stages.process.job import Job
from stages.rows.strict_json import type_name


class Gold(Part):
    """A column of the source is the completion; of a list, training uses the first, and an evaluation accepts each as correct."""

    kind: Literal["gold"] = "gold"
    column: str = recipe(description="Column with the completion.", min_length=1)

    free: ClassVar[bool] = True
    """Whether answers cost nothing, so that a preview may request them."""

    def columns(self) -> tuple[str, ...]:
        """Columns of a row that the answer depends on, in addition to the prompt."""
        return (self.column,)

    def answers(self, questions: Iterable[Question], job: Job, tally: Tally) -> Iterator[Answer]:
        """The completion of each row, empty if the column is null; raises UserError if it is missing or not text."""
        for question in questions:
            texts = gold_texts(self._value(question), f"column '{self.column}'", question.where)
            yield Answer(texts[0] if texts else "", references=texts if len(texts) > 1 else ())

    def _value(self, question: Question) -> object:
        row, where = question.row, question.where
        if self.column not in row:
            raise UserError(f"this row has no column '{self.column}'", where, lacking(self.column, row))
        return row[self.column]


def gold_texts(value: object, name: str, where: Location) -> tuple[str, ...]:
    """The correct answers in VALUE, the content of NAME: none for null, one for text or a number, several for a list, without duplicates.

    Raises UserError, located at the row, for anything else.
    """
    if value is None:
        return ()
    if not isinstance(value, list | tuple):
        return (_text(value, name, where),)
    for number, item in enumerate(value, 1):
        if item is None or (isinstance(item, str) and not item.strip()):
            what = f"item {number} of the list in {name} is {'null' if item is None else 'blank'}"
            raise UserError(what, where, 'filter the list: columns = { references = "' + _SELECT + '" }')
    return tuple(dict.fromkeys(_text(item, f"item {number} of {name}", where) for number, item in enumerate(value, 1)))


_SELECT = "COLUMN | select | list"


def _text(value: object, name: str, where: Location) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    raise UserError(f"{name} must be text, got {type_name(value)}", where, "use a column with text, numbers, or lists of these")
