"""Rows that another task of the spec generates, for chains such as summarize, then judge."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from engine.core.part import Name, Need, recipe
from stages.generate.selection import Located, Selection
from stages.rows.jsonl import read_objects

CARRIED = "carried"
"""The key of the carried columns in a generated row."""


class TaskRows(Selection):
    """Rows of another task of the spec: `prompt`, `completion`, `group`, and its carried columns."""

    kind: Literal["task"] = "task"
    task: Name = recipe(description="Name of the other task.")
    split: Literal["train", "validation", "test"] | None = recipe(None, "Use only the rows of this split; if unset, all rows.")

    def needs(self) -> tuple[Need, ...]:
        """The other task's rows."""
        return (Need(("task",), task=self.task, split=self.split),)

    def group_column(self) -> str | None:
        """`group`: a row stays in the split of the row that it was generated from."""
        return "group"

    def read(self, files: Sequence[Path]) -> Iterator[Located]:
        """Each row of the other task with its line."""
        for where, row in read_objects(files[0]):
            carried = row.pop(CARRIED, {})
            assert isinstance(carried, dict)
            yield where, {**carried, **row}
