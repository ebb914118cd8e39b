"""Rows of local JSON files: a list of objects, or an object that contains one."""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from engine.core.errors import Location, UserError, did_you_mean
from engine.core.part import recipe
from stages.generate.selection import Files, Located
from stages.rows.jsonl import read_document
from stages.rows.strict_json import type_name


class Json(Files):
    """Local JSON files with a list of objects, read into memory."""

    kind: Literal["json"] = "json"
    rows: str | None = recipe(None, "Key of the list of rows, such as `data`; if unset, the file is the list.")

    def read_file(self, path: Path) -> Iterator[Located]:
        """Each row with its number; raises UserError if the file is not a list of objects."""
        found, hint = read_document(path), 'the file must be a list of objects; if the list is under a key, set rows = "KEY"'
        if self.rows is not None and isinstance(found, dict):
            if self.rows not in found:
                raise UserError(f"this file has no key '{self.rows}'", Location(str(path)), did_you_mean(self.rows, found))
            found = found[self.rows]
        if not isinstance(found, list):
            raise UserError(f"this file must contain a list of rows, got {type_name(found)}", Location(str(path)), hint)
        for number, row in enumerate(found, 1):
            where = Location(f"{path}, row {number}")
            if not isinstance(row, dict):
                raise UserError(f"a row must be an object, got {type_name(row)}", where, hint)
            yield where, row
