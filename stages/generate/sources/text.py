"""Rows of local text files: one per file, paragraph or line."""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from engine.core.errors import Location
from engine.core.part import recipe
from stages.generate.selection import Files, Located
from stages.rows.jsonl import text_lines


class Text(Files):
    """Local text files; `.gz` and `.zst` files are decompressed.

    Rows have the columns `text` and `file` (the file's name without suffixes)."""

    kind: Literal["text"] = "text"
    split: Literal["file", "blank_line", "line"] = recipe(
        "file", "One row per file, per paragraph (separated by blank lines) or per line; blank texts are skipped."
    )

    def read_file(self, path: Path) -> Iterator[Located]:
        """Each text with the line on which it begins; raises UserError if the file is not UTF-8."""
        name = path.name.split(".")[0]
        if self.split == "file":
            found = iter([(1, text)] if (text := _whole(path)).strip() else [])
        else:
            found = _paragraphs(path) if self.split == "blank_line" else _lines(path)
        for line, text in found:
            yield Location(str(path), line), {"text": text, "file": name}


def _whole(path: Path) -> str:
    return "".join(line for _, line in text_lines(path))


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    return ((number, line.rstrip("\r\n")) for number, line in text_lines(path) if line.strip())


def _paragraphs(path: Path) -> Iterator[tuple[int, str]]:
    """Paragraphs, separated by blank lines, each without its final line end."""
    begun, lines = 0, list[str]()
    for number, line in text_lines(path):
        if line.strip():
            begun, lines = (begun, [*lines, line]) if lines else (number, [line])
        elif lines:
            yield begun, "".join(lines).rstrip("\r\n")
            lines = []
    if lines:
        yield begun, "".join(lines).rstrip("\r\n")
