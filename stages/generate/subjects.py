"""The rows of a task's sources, each with its content hash, its group, and a split if the source assigns one."""

import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from engine.core.errors import Location, UserError
from stages.generate import Parameters
from stages.generate.layout import PREFERENCE, UNPAIRED
from stages.generate.selecting import Selected, with_columns
from stages.generate.selection import Located, Row, lacking
from stages.process.hashing import canonical, content_hash
from stages.process.job import Job
from stages.process.progress import progress
from stages.rows.splits import SPLITS
from stages.rows.strict_json import type_name
from stages.rows.text import shorten

_SPLIT_NAMES = {**{name: name for name in SPLITS}, **dict.fromkeys(("valid", "val", "dev", "development"), "validation")}


@dataclass(frozen=True, slots=True)
class Subject:
    """One row of a source."""

    where: Location
    row: Row
    """The source's columns, including those of a layout."""
    content: str
    """Hash of the columns that the task uses; other columns have no effect."""
    group: str
    split: str | None
    """The split that the source assigns; None if the hash of the group decides."""
    rejected: Mapping[str, object] | None = None
    """The message of the rejected answer, if the row is a pair."""

    @property
    def is_fixed(self) -> bool:
        """Whether the row is in a published test or validation split, which is used unchanged, without cleaning."""
        return self.split in ("validation", "test")


class Subjects:
    """Iterates over the sources of a task once; counts rows, and rows left out by reason."""

    def __init__(self, parameters: Parameters, job: Job, fields: frozenset[str]) -> None:
        self.parameters, self.job = parameters, job
        self.fields = fields
        """Fields of the prompts' templates."""
        teacher, few_shot = parameters.teacher, parameters.few_shot
        self.used = fields.union(teacher.columns() if teacher else ("messages", "tools"), [few_shot.answer] if few_shot else [])
        self.layouts: Counter[str] = Counter()
        self.ignored_keys: Counter[str] = Counter()
        """Keys of messages that the layout ignores, with the number of messages that have them."""
        # A slow teacher reports its own progress, which is more informative.
        self._silent = getattr(teacher, "reports_progress", False)
        self._main = Selected(parameters.source)
        self._test = Selected(parameters.test_source) if parameters.test_source else None

    @property
    def rows_in(self) -> int:
        return self._main.rows_in + (self._test.rows_in if self._test else 0)

    @property
    def left_out(self) -> Counter[str]:
        return self._main.left_out + (self._test.left_out if self._test else Counter())

    def main(self, source: Iterable[Located] | None = None) -> Iterator[Subject]:
        """The rows of the main source: from its files, or from SOURCE."""
        rows = self.parameters.source.read(self.job.files("source")) if source is None else source
        for where, row in self._shown(self._main.rows(rows), self.job.name):
            yield self._subject(row, where, self._fixed(row, where))

    def one(self, given: Row, where: Location) -> Subject:
        """The subject that the columns GIVEN of a row make, whatever the source selects."""
        return self._subject(with_columns(self.parameters.source, given, where), where, None)

    def test(self) -> Iterator[Subject]:
        """The rows of the fixed test split, if it has a source."""
        if self._test and self.parameters.test_source:
            rows: Iterable[Located] = self.parameters.test_source.read(self.job.files("test_source"))
            for where, row in self._shown(self._test.rows(rows), f"{self.job.name} test"):
                yield self._subject(row, where, "test")

    def expected(self) -> int | None:
        """Rows of the source before filters, if a teacher needs the number and counting needs no network; else None."""
        source = self.parameters.source
        if not self._silent or source.kind == "hub":
            return None
        return min(sum(1 for _ in source.read(self.job.files("source"))), source.limit or sys.maxsize)

    def _shown(self, rows: Iterable[Located], name: str) -> Iterable[Located]:
        return rows if self._silent else progress(rows, name)

    def _subject(self, row: Row, where: Location, split: str | None) -> Subject:
        used, rejected = self.used, None
        if self.parameters.layout:
            name, row = self.parameters.layout.normalised(row, where, self.ignored_keys)
            self.layouts[name] += 1
            if name == PREFERENCE:
                rejected = row["rejected"]
                used = used | {"rejected"}
            if name == UNPAIRED:
                used = used | {"desirable"}
        content = self._hash(row, used)
        return Subject(where, row, content, self._group(row, content, where), split, rejected)  # type: ignore[arg-type]

    def _hash(self, row: Row, columns: frozenset[str]) -> str:
        """Hash of those of COLUMNS that the row has; of all its columns if it has none of them."""
        return content_hash({name: row[name] for name in row if name in columns} or row)

    def _group(self, row: Row, content: str, where: Location) -> str:
        """The value of the group column, as text; without one, rows with equal questions form a group, whatever their answers."""
        column = self.parameters.group_by or self.parameters.source.group_column()
        if column is None:
            if self.parameters.teacher is None:
                question = row["messages"][:-1]  # type: ignore[index]
                return content_hash(question) if question else content
            return self._hash(row, self.fields) if self.fields else content
        value = _value(row, column, where, "group by", "give every row a value, or remove split.group_by")
        return value if isinstance(value, str) else canonical(value).decode()

    def _fixed(self, row: Row, where: Location) -> str | None:
        column = self.parameters.split_column
        if column is None:
            return None
        value = _value(row, column, where, "split by", 'give every row "train", "validation" or "test"')
        name = value.strip().lower() if isinstance(value, str) else value
        if not isinstance(name, str) or name not in _SPLIT_NAMES:
            shown = shorten(value) if isinstance(value, str) else type_name(value)
            hint = 'it must be "train", "validation" or "test"; convert it with columns = { ... }'
            raise UserError(f"column '{column}' is {shown}, which is not a split", where, hint)
        return _SPLIT_NAMES[name]


def _value(row: Row, column: str, where: Location, purpose: str, hint: str) -> object:
    if column not in row:
        raise UserError(f"this row has no column '{column}' to {purpose}", where, lacking(column, row))
    if row[column] is None:
        raise UserError(f"column '{column}' is null, which is not a {purpose.split()[0]}", where, hint)
    return row[column]
