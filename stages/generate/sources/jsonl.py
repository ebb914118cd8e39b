"""Rows from a local file with one JSON object a line."""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from engine.errors import Location
from engine.part import Part, recipe
from stages.common.jsonl import read_objects


class Jsonl(Part):
    """A local file with one JSON object a line."""

    kind: Literal["jsonl"] = "jsonl"
    path: str = recipe(description="The file, relative to the workspace, or absolute.", min_length=1)
    limit: int | None = recipe(None, "Use only the first rows.", gt=0)

    def read(self, files: dict[str, Path]) -> Iterator[tuple[Location, dict[str, object]]]:
        """Each row with the line it stands on; raises UserError at a line that is no JSON object."""
        for number, (where, row) in enumerate(read_objects(files["source"])):
            if number == self.limit:
                return
            yield where, row
