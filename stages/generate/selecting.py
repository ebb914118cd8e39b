"""Applies the options of a source to its rows: columns renamed and converted, rows filtered, limited and sampled."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from heapq import heappush, heappushpop

from engine.core.errors import Location, UserError
from stages.generate.selection import Column, Located, Row, Sample, Selection, lacking
from stages.process.hashing import content_hash, fraction
from stages.rows.strict_json import parse, type_name, unwritable
from stages.rows.text import shorten

COLUMN, FILTER, SAMPLE = "columns.{}", "where", "not in the sample"


@dataclass
class Selected:
    """The rows of a source after its selection, with counts of rows read and of rows left out by reason."""

    selection: Selection
    rows_in: int = 0
    left_out: Counter[str] = field(default_factory=Counter)

    def rows(self, source: Iterable[Located]) -> Iterator[Located]:
        """The selected rows of SOURCE, in order."""
        rows = self._filtered(source)
        sample = self.selection.sample
        if sample is None:
            return rows
        return self._share(rows, sample, sample.share) if sample.share is not None else self._smallest(rows, sample)

    def _filtered(self, source: Iterable[Located]) -> Iterator[Located]:
        from stages.rows.templates import Expression

        made = _made(self.selection)
        keep = Expression(self.selection.where, FILTER, self._guarded) if self.selection.where else None
        left = self.selection.limit
        for where, given in source:
            self.rows_in += 1
            row = {**given, **{column.name: column.value(given, where) for column in made}} if made else given
            if keep is not None and not keep.value(row, where):
                self.left_out[FILTER] += 1
                continue
            yield where, row
            left = None if left is None else left - 1
            if left == 0:  # before reading the next row: remote rows are expensive
                return

    def _guarded(self, field: str, row: Mapping[str, object]) -> str | None:
        """A hint for ROW, which lacks a FIELD of `where`: the expression for a source of which some rows lack it."""
        kept = f"{field} is defined" + (f" and ({self.selection.where})" if self.selection.where != field else "")
        return lacking(field, row, f"write: where = {json.dumps(kept, ensure_ascii=False)}")

    def _share(self, rows: Iterable[Located], sample: Sample, share: float) -> Iterator[Located]:
        for where, row in rows:
            if fraction("sample", sample.seed, row) < share:
                yield where, row
            else:
                self.left_out[SAMPLE] += 1

    def _smallest(self, rows: Iterable[Located], sample: Sample) -> Iterator[Located]:
        """The rows with the smallest hashes; only those are held in memory."""
        assert sample.rows is not None
        kept: list[tuple[int, int, Location, Row]] = []
        for number, (where, row) in enumerate(rows):
            # heapq is a min-heap: negated, so that the largest hash, and of equal ones the latest row, is removed first.
            item = (-int(content_hash("sample", sample.seed, row), 16), -number, where, row)
            if len(kept) < sample.rows:
                heappush(kept, item)
            else:
                heappushpop(kept, item)
                self.left_out[SAMPLE] += 1
        for _, _, where, row in sorted(kept, key=lambda item: -item[1]):
            yield where, row


def with_columns(selection: Selection, given: Row, where: Location) -> Row:
    """GIVEN with the columns that SELECTION makes of its own."""
    return {**given, **{column.name: column.value(given, where) for column in _made(selection)}}


def _made(selection: Selection) -> "list[_Made]":
    return [_Made(name, column if isinstance(column, Column) else Column(of=column)) for name, column in selection.columns.items()]


class _Made:
    """A new column: an existing column of that name, else an expression."""

    def __init__(self, name: str, column: Column) -> None:
        from stages.rows.templates import Expression

        self.name, self.column = name, column
        # A column such as `section text` or `a-b` is not an expression, or a different one: exact names take precedence.
        self._expression = Expression(column.of, COLUMN.format(name), _defaulted) if not _is_plain(column.of) else None

    def value(self, row: Row, where: Location) -> object:
        """The value for ROW; raises UserError if its source is missing or cannot be converted."""
        if self.column.of in row:
            found = row[self.column.of]
        elif self._expression:
            found = self._expression.value(row, where)
        else:
            why = _no_expression(self.column.of)
            hint = f"it is not a valid expression either: {why}" if why else _defaulted(self.column.of, row)
            raise UserError(f"{COLUMN.format(self.name)} uses column '{self.column.of}', which this row does not have", where, hint)
        if found is not None and self.column.type is not None:
            return _converted(found, self.column.type, self.name, where)
        if why := unwritable(found):
            raise UserError(f"{COLUMN.format(self.name)} is {why}", where, f"it is computed from: {self.column.of}")
        return found


def _defaulted(field: str, row: Mapping[str, object]) -> str | None:
    """A hint for ROW, which lacks a FIELD that a new column is computed from."""
    return lacking(field, row, f'give it a value: {field} | default("")' if field.isidentifier() else None)


def _is_plain(text: str) -> bool:
    """Whether TEXT can only be a column name, not an expression."""
    from stages.rows.templates import Expression

    try:
        return Expression(text, "").fields == {text}
    except UserError:  # `section text` does not parse as an expression
        return True


def _no_expression(text: str) -> str | None:
    """Why TEXT, which is not a column, is not a valid expression; None if it has only words, so is unlikely to be meant as one."""
    from stages.rows.templates import Expression

    try:
        Expression(text, "")
    except UserError as error:
        return error.problems[0].what.partition(": ")[2] if set(text) & _SIGNS else None
    return None


_SIGNS = frozenset("|()[]{}'\"<>=+*/%~")
"""Characters that are common in expressions and rare in column names."""


_TRUE, _FALSE = {"true", "yes", "1"}, {"false", "no", "0"}


def _converted(value: object, wanted: str, name: str, where: Location) -> object:
    """VALUE converted to another type; raises UserError if it cannot be."""
    try:
        return _CONVERT[wanted](value)
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        shown = shorten(value) if isinstance(value, str) else type_name(value)
        why = str(error) if wanted == "json" and isinstance(value, str) else None
        raise UserError(f"{COLUMN.format(name)} must be {_WORDS[wanted]}, got {shown}", where, why) from None


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, allow_nan=False)


def _integer(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise TypeError
    if isinstance(value, float) and not value.is_integer():
        raise ValueError
    return int(value)


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise TypeError
    found = float(value)
    if not abs(found) < float("inf"):
        raise ValueError
    return found


def _boolean(value: object) -> bool:
    if isinstance(value, bool):
        return value
    text = str(value).strip().lower()
    if text not in _TRUE | _FALSE:
        raise ValueError
    return text in _TRUE


def _json(value: object) -> object:
    if not isinstance(value, str):
        return value
    return parse(value)


_CONVERT = {"text": _text, "integer": _integer, "number": _number, "boolean": _boolean, "json": _json}
_WORDS: Mapping[str, str] = {
    "text": "text",
    "integer": "an integer",
    "number": "a number",
    "boolean": "true or false",
    "json": "JSON text",
}
