"""Decontamination: leaves out rows that share a word 13-gram with an evaluation set (Brown et al., 2020, appendix C)."""

import hashlib
from collections.abc import Iterator
from typing import Any, Literal

from engine.core.errors import Location, UserError
from engine.core.part import recipe
from stages.generate.cleaning.rule import Check, FilesOf, Rule
from stages.generate.selecting import Selected
from stages.generate.selection import Row, lacking
from stages.generate.sources import Source
from stages.rows.words import words


class Overlap(Rule):
    """Decontamination: rows that share a word n-gram with an evaluation set are left out."""

    kind: Literal["overlap"] = "overlap"
    environment = ("regex",)
    against: Source = recipe(description="The evaluation set: any source, such as another task's test split.")
    texts: tuple[str, ...] = recipe((), "Columns of the evaluation set to compare; if empty, all that contain text.")
    ngram: int = recipe(13, "Words per n-gram.", gt=1)
    shortest: int = recipe(8, "Evaluation texts shorter than ngram are compared whole, those with fewer words than this are ignored.", gt=0)

    def check(self, files: FilesOf) -> Check:
        """A check that stores 64 bits of a hash of every n-gram of the set; raises UserError if the set lacks a column or has no text."""
        selected = Selected(self.against)
        rows = selected.rows(self.against.read(files("against")))
        known: dict[int, set[bytes]] = {}
        for where, row in rows:
            for text in self._texts(row, where):
                found = words(text)
                size = min(self.ngram, len(found))
                if len(found) >= min(self.shortest, self.ngram):
                    known.setdefault(size, set()).update(_grams(found, size))
        if not known:
            what = f"the evaluation set of rule 'overlap' contains no text of at least {self.shortest} words"
            raise UserError(what, hint="check `against` and `texts`")

        def reason(text: str) -> str | None:
            found = words(text)
            if any(gram in grams for size, grams in known.items() for gram in _grams(found, size)):
                return "overlap with the evaluation set"
            return None

        return reason

    def _texts(self, row: Row, where: Location) -> Iterator[str]:
        for column in self.texts:
            if column not in row:
                raise UserError(f"this row of the evaluation set has no column '{column}'", where, lacking(column, row))
        yield from _strings([row[column] for column in self.texts] if self.texts else list(row.values()))


def _strings(value: Any) -> Iterator[str]:
    """Every text inside a JSON value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | dict):
        for item in value if isinstance(value, list) else value.values():
            yield from _strings(item)


def _grams(found: list[str], size: int) -> Iterator[bytes]:
    for start in range(len(found) - size + 1):
        yield hashlib.sha256(" ".join(found[start : start + size]).encode("utf-8", "surrogatepass")).digest()[:8]
