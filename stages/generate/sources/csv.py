"""Rows of local CSV files (or with another delimiter) with a header line."""

import csv
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from engine.core.errors import Location, UserError
from engine.core.part import recipe
from stages.generate.selection import Files, Located
from stages.rows.jsonl import text_lines

_CARRIAGE_RETURN = re.compile(r"(?<=\r)(?!\n)")
"""Line ends, including the CR of classic Mac OS."""


class Csv(Files):
    """Local CSV files with a header line; `.gz` and `.zst` files are decompressed.

    Every value is text (`columns` converts it)."""

    kind: Literal["csv"] = "csv"
    delimiter: str = recipe(",", 'Separator of values; `"\\t"` for tabs.', min_length=1, max_length=1)

    def read_file(self, path: Path) -> Iterator[Located]:
        """Each row, located at the line on which it ends; raises UserError if its number of values differs from the header's."""
        # csv's default limit of 128 KiB per field is too small for articles.
        csv.field_size_limit(2**31 - 1)
        lines = (part for _, line in text_lines(path) for part in _CARRIAGE_RETURN.split(line) if part)
        reader = csv.reader(lines, delimiter=self.delimiter, strict=True)
        try:
            yield from _rows(reader, path)
        except csv.Error as error:
            raise UserError(f"invalid CSV: {error}", Location(str(path), reader.line_num)) from None


def _rows(reader: Any, path: Path) -> Iterator[Located]:
    header = next(reader, None)
    if not header:
        raise UserError("this file has no header line", Location(str(path), 1), "the first line must name the columns")
    if twice := next((name for name in header if header.count(name) > 1), None):
        raise UserError(f"the header names column '{twice}' twice", Location(str(path), 1), "give each column a unique name")
    for values in reader:
        if not values:
            continue
        where = Location(str(path), reader.line_num)
        if len(values) != len(header):
            raise UserError(f"this row has {len(values)} values, the header names {len(header)} columns", where, "is the delimiter right?")
        yield where, dict(zip(header, values, strict=True))
