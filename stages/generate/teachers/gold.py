"""Completions that the source already holds."""

from typing import Literal

from engine.errors import Location, UserError, did_you_mean
from engine.part import Part, recipe
from stages.common.jsonl import type_name


class Gold(Part):
    """A column of the source is the completion."""

    kind: Literal["gold"] = "gold"
    column: str = recipe(description="The column that holds the completion.", min_length=1)

    def answer(self, row: dict[str, object], where: Location) -> str:
        """The completion of ROW, empty where the column is null; raises UserError where it is missing or holds no text."""
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
