"""The best answers among those that a step of the spec scored, for supervised tuning: best of n, rejection sampling."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar, Literal

from engine.core.part import Name, Need, recipe
from stages.generate.selection import Located, Selection
from stages.rows.jsonl import read_objects


class BestOf(Selection):
    """The best answers that `[pairs.<name>]` scored: `prompt` and `completion`, or `messages`, with `score` and `rank` (from 1)."""

    kind: Literal["best_of"] = "best_of"
    pairs: Name = recipe(description="Name of the scored answers: `[pairs.<name>]`.")
    n: int = recipe(1, "Maximum number of answers to each prompt, the best first.", gt=0)
    min_score: float | None = recipe(None, "Use only answers with at least this score; with a large `n` this is rejection sampling.")
    split_column: ClassVar[str | None] = "split"

    def needs(self) -> tuple[Need, ...]:
        """The file of scored answers."""
        return (Need(("pairs",), pairs=self.pairs, file="answers.jsonl"),)

    def group_column(self) -> str | None:
        """`group`: all answers to a prompt stay together."""
        return "group"

    def read(self, files: Sequence[Path]) -> Iterator[Located]:
        """Each answer that is good enough with its line."""
        for where, row in read_objects(files[0]):
            rank, score = row["rank"], row["score"]
            assert isinstance(rank, int) and isinstance(score, int | float)
            if rank <= self.n and (self.min_score is None or score >= self.min_score):
                yield where, row
