"""Rows of local files with one JSON object per line."""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from stages.generate.selection import Files, Located
from stages.rows.jsonl import read_objects


class Jsonl(Files):
    """Local files with one JSON object per line; `.gz` and `.zst` files are decompressed."""

    kind: Literal["jsonl"] = "jsonl"

    def read_file(self, path: Path) -> Iterator[Located]:
        """Each row with its line; raises UserError at a line that is not a JSON object."""
        return read_objects(path)
