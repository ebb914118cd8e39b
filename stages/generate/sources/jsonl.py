"""Rows from local files with one JSON object a line."""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from stages.generate.selection import Located
from stages.generate.sources.files import Files
from stages.rows.jsonl import read_objects


class Jsonl(Files):
    """Local files with one JSON object a line, compressed where they end in `.gz` or `.zst`."""

    kind: Literal["jsonl"] = "jsonl"

    def read_file(self, path: Path) -> Iterator[Located]:
        """Each row with the line it stands on; raises UserError at a line that is no JSON object."""
        return read_objects(path)
