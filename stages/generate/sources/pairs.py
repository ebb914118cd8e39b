"""Pairs that a step of the spec made of models' answers, for tasks of layout `preference`."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar, Literal

from engine.core.part import Name, Need, recipe
from stages.generate.selection import Located, Selection
from stages.rows.jsonl import read_objects


class Pairs(Selection):
    """Pairs of `[pairs.<name>]`: `prompt`, `chosen`, `rejected`, their scores and the margin, each in the split of its prompt."""

    kind: Literal["pairs"] = "pairs"
    pairs: Name = recipe(description="Name of the pairs: `[pairs.<name>]`.")
    split_column: ClassVar[str | None] = "split"

    def needs(self) -> tuple[Need, ...]:
        """The file of pairs."""
        return (Need(("pairs",), pairs=self.pairs, file="pairs.jsonl"),)

    def group_column(self) -> str | None:
        """`group`: all pairs of a prompt stay together."""
        return "group"

    def read(self, files: Sequence[Path]) -> Iterator[Located]:
        """Each pair with its line."""
        return read_objects(files[0])
