"""Rows from local JSON files: a list of objects, or an object that holds one."""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from engine.core.errors import Location, UserError, did_you_mean
from engine.core.part import recipe
from stages.generate.selection import Located
from stages.generate.sources.files import Files
from stages.rows.jsonl import read_document, type_name


class Json(Files):
    """Local JSON files that hold a list of objects, read whole."""

    kind: Literal["json"] = "json"
    rows: str | None = recipe(None, "The key under which the list of rows stands, such as `data`; none given: the file is the list.")

    def read_file(self, path: Path) -> Iterator[Located]:
        """Each row with its number; raises UserError where the file is no list of objects."""
        found, hint = read_document(path), 'a list of objects is expected, or rows = "KEY" where it stands under a key'
        if self.rows is not None and isinstance(found, dict):
            if self.rows not in found:
                raise UserError(f"this file has no key '{self.rows}'", Location(str(path)), did_you_mean(self.rows, found))
            found = found[self.rows]
        if not isinstance(found, list):
            raise UserError(f"this file holds {type_name(found)}, not a list of rows", Location(str(path)), hint)
        for number, row in enumerate(found, 1):
            where = Location(f"{path}, row {number}")
            if not isinstance(row, dict):
                raise UserError(f"this row is {type_name(row)}, not an object", where, hint)
            yield where, row
