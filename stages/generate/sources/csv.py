"""Rows from local tables of text with a header line: comma-separated values and their like."""

import csv
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from engine.core.errors import Location, UserError
from engine.core.part import recipe
from stages.generate.selection import Located
from stages.generate.sources.files import Files
from stages.rows.jsonl import text_lines

_CARRIAGE_RETURN = re.compile(r"(?<=\r)(?!\n)")
"""Where lines end in files of old Macs."""


class Csv(Files):
    """Local CSV files with a header line, compressed where they end in `.gz` or `.zst`.

    Every value is text (`columns` gives it another type)."""

    kind: Literal["csv"] = "csv"
    delimiter: str = recipe(",", 'What stands between two values; `"\\t"` for tabs.', min_length=1, max_length=1)

    def read_file(self, path: Path) -> Iterator[Located]:
        """Each row with the line on which it ends; raises UserError where a row has not as many values as the header."""
        # No limit of our own making: an article may be longer than csv's 128 KiB.
        csv.field_size_limit(2**31 - 1)
        lines = (part for _, line in text_lines(path) for part in _CARRIAGE_RETURN.split(line) if part)
        reader = csv.reader(lines, delimiter=self.delimiter, strict=True)
        try:
            yield from _rows(reader, path)
        except csv.Error as error:
            raise UserError(f"this is no CSV: {error}", Location(str(path), reader.line_num)) from None


def _rows(reader: Any, path: Path) -> Iterator[Located]:
    header = next(reader, None)
    if not header:
        raise UserError("this file has no header line", Location(str(path), 1), "the first line must name the columns")
    if twice := next((name for name in header if header.count(name) > 1), None):
        raise UserError(f"the header names column '{twice}' twice", Location(str(path), 1), "give each column a name of its own")
    for values in reader:
        if not values:
            continue
        where = Location(str(path), reader.line_num)
        if len(values) != len(header):
            raise UserError(f"this row has {len(values)} values, the header names {len(header)} columns", where, "is the delimiter right?")
        yield where, dict(zip(header, values, strict=True))
