"""Rows of a built-in generator: no network, no files, the same rows for the same seed."""

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Literal

from engine.core.errors import Location
from engine.core.part import recipe
from stages.generate.selection import Located, Selection


class Synthetic(Selection):
    """Rows of a seeded generator: short news-like reports, or word chunks repeated in random order."""

    kind: Literal["synthetic"] = "synthetic"
    generator: Literal["reports", "copies"] = recipe(description="What column `text` contains: reports, or repeated word chunks.")
    rows: int = recipe(2000, "Number of distinct rows.", gt=0)
    joined: int = recipe(1, "Number of texts per row.", gt=0)
    seed: int = recipe(0, "Seed of the generator.", ge=0, lt=2**63)

    def known_columns(self) -> tuple[str, ...]:
        """The columns of every row."""
        return ("text",)

    def read(self, files: Sequence[Path]) -> Iterator[Located]:
        """Each row with its number."""
        from stages.generate import reports

        make = {"reports": reports.reports, "copies": reports.copies}[self.generator]
        texts = make(self.rows * self.joined, self.seed)
        for number in range(1, self.rows + 1):
            yield Location(f"synthetic {self.generator}", number), {"text": " ".join(islice(texts, self.joined))}
