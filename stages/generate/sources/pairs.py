"""Pairs that a step of the spec made of models' answers, for tasks of layout `preference`."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar, Literal

from engine.core.errors import UserError
from engine.core.part import Name, Need, recipe
from stages.generate.selection import Located, Selection
from stages.rows.jsonl import read_objects

PAIRS_FILE = "pairs.jsonl"


class Pairs(Selection):
    """Pairs of `[pairs.<name>]`: `prompt`, `chosen`, `rejected`, their scores and the margin, each in the split of its prompt."""

    kind: Literal["pairs"] = "pairs"
    pairs: Name = recipe(description="Name of the pairs: `[pairs.<name>]`.")
    split_column: ClassVar[str | None] = "split"

    def needs(self) -> tuple[Need, ...]:
        """The file of pairs."""
        return (Need(("pairs",), pairs=self.pairs, file=PAIRS_FILE),)

    def group_column(self) -> str | None:
        """`group`: all pairs of a prompt stay together."""
        return "group"

    def read(self, files: Sequence[Path]) -> Iterator[Located]:
        """Each pair with its line; raises UserError if there is none."""
        pairs = read_objects(files[0])
        first = next(pairs, None)
        if first is None:
            what = f"[pairs.{self.pairs}] has no pairs: no prompt has two answers whose scores differ enough"
            tried = "take more samples, a higher temperature, other scores or a smaller min_margin"
            raise UserError(what, hint=f"{tried}; metrics/pair-{self.pairs}.json counts the reasons")
        yield first
        yield from pairs
