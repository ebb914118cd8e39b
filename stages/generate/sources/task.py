"""Rows that another task of the spec generates: chains such as summarize, then judge."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from engine.core.part import Name, Need, recipe
from stages.generate.selection import Located, Selection
from stages.rows.jsonl import read_objects

CARRIED = "carried"
"""The key of a generated row under which the columns stand that its task carries on."""


class TaskRows(Selection):
    """What another task of the spec generates: `prompt`, `completion`, `group`, and the columns that it carries on."""

    kind: Literal["task"] = "task"
    task: Name = recipe(description="Name of the other task.")
    split: Literal["train", "validation", "test"] | None = recipe(None, "Only the rows of this split; none given: all of them.")

    def needs(self) -> tuple[Need, ...]:
        """The other task's rows."""
        return (Need(("task",), task=self.task, split=self.split),)

    def group_column(self) -> str | None:
        """A row stays with what it was made of."""
        return "group"

    def read(self, files: Sequence[Path]) -> Iterator[Located]:
        """Each row of the other task with the line it stands on."""
        for where, row in read_objects(files[0]):
            carried = row.pop(CARRIED, {})
            assert isinstance(carried, dict)
            yield where, {**carried, **row}
