"""Lays tables out for a terminal of any width, so that no text is lost: side by side, with cells wrapped between words, or row by row."""

import re
from collections.abc import Sequence
from typing import NamedTuple
from unicodedata import combining, east_asian_width

Line = list[tuple[str, str]]
"""Pieces of text, each with its style."""

_NUMBER = re.compile(r"([+-]?[\d.,]+|< [\d.]+|\[[^]]*\])?( \[[^]]*\])?( [*~ ])?|–")
"""A number with its interval and mark, an interval, or nothing."""
_INDENT, _EDGES = 2, 3
"""Blanks before a row; columns in addition to those of the cells: the blanks, and one by which the rule is longer."""
_HEAD, _DIM = "bold", "dim"


class _Grid(NamedTuple):
    """How wide each column is, and how many blanks are between two."""

    widths: list[int]
    gap: int


def room_of(text: str) -> int:
    """The columns of a terminal that TEXT takes."""
    if text.isascii():
        return len(text)
    return sum(0 if combining(one) else 2 if east_asian_width(one) in "WF" else 1 for one in text)


def wrapped(line: Sequence[tuple[str, str]], width: int) -> list[Line]:
    """LINE wrapped between words to WIDTH columns; a longer word has a line of its own."""
    if sum(room_of(text) for text, _ in line) <= width:
        return [list(line)]
    lines: list[Line] = [[]]
    used = 0
    for word, style in ((word, style) for text, style in line for word in text.split(" ") if word):
        if used and used + 1 + room_of(word) > width:
            lines.append([])
            used = 0
        lines[-1].append((f" {word}" if used else word, style))
        used += room_of(word) + bool(used)
    return lines


def side_by_side(columns: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> bool:
    """Whether a table of these COLUMNS fits into WIDTH with its rows as lines."""
    return _grid(columns, rows, width) is not None


def laid_out(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], caption: str | None, width: int) -> list[Line]:
    """The lines of a table, at most WIDTH columns wide if every word is; columns of numbers are right-aligned, except the first.

    A table that is too wide even with its cells wrapped between words is shown row by row: under the first cell the others, each behind
    the name of its column.
    """
    grid = _grid(columns, rows, width)
    body = _stacked(columns, rows, width) if grid is None else _grid_lines(columns, rows, grid)
    below = [[], *wrapped([(caption, _DIM)], width)] if caption else []
    return [*wrapped([(title, _HEAD)], width), [], *body, *below, []]


def _grid(columns: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> _Grid | None:
    """The widths of COLUMNS: those of their texts, or as much as WIDTH has for each; None if it is too little for the longest words."""
    whole = [max(map(room_of, cells)) for cells in zip(columns, *rows, strict=True)]
    if _EDGES + sum(whole) + 3 * (len(whole) - 1) <= width:
        return _Grid(whole, 3)
    words = [
        max(map(room_of, [*column.split(), *(cells if numeric else " ".join(cells).split())]), default=0)  # a number is never split
        for column, cells, numeric in zip(columns, _by_column(columns, rows), _numeric(columns, rows), strict=True)
    ]
    room = width - _EDGES - 2 * (len(whole) - 1)
    for most in range(max(whole), 0, -1):
        widths = [max(least, min(all_of_it, most)) for least, all_of_it in zip(words, whole, strict=True)]
        if sum(widths) <= room:
            return _Grid(widths, 2)
    return None


def _by_column(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[list[str]]:
    return [[row[number] for row in rows] for number in range(len(columns))]


def _numeric(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[bool]:
    return [bool(rows) and all(map(_NUMBER.fullmatch, cells)) for cells in _by_column(columns, rows)]


def _grid_lines(columns: Sequence[str], rows: Sequence[Sequence[str]], grid: _Grid) -> list[Line]:
    right = [number > 0 and numeric for number, numeric in enumerate(_numeric(columns, rows))]
    rule = "─" * (sum(grid.widths) + grid.gap * (len(columns) - 1) + 2)
    lines = [*_cells(columns, _HEAD, right, grid), [(f" {rule}", _DIM)]]
    for row in rows:
        lines += _cells(row, "", right, grid)
    return lines


def _cells(row: Sequence[str], style: str, right: Sequence[bool], grid: _Grid) -> list[Line]:
    """The lines of one row, without blanks at their ends."""
    wraps = [wrapped([(cell, "")], width) for cell, width in zip(row, grid.widths, strict=True)]
    cells = [["".join(text for text, _ in line) for line in found] for found in wraps]
    lines = []
    for number in range(max(map(len, cells))):
        line = " " * _INDENT
        for cell, width, to_right in zip(cells, grid.widths, right, strict=True):
            text = cell[number] if number < len(cell) else ""
            blanks = " " * (width - room_of(text))
            line += (blanks + text if to_right else text + blanks) + " " * grid.gap
        lines.append([(line.rstrip(), style)])
    return lines


def _stacked(columns: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> list[Line]:
    lines: list[Line] = []
    for first, *others in rows:
        lines += [[("  ", ""), *line] for line in wrapped([(first, _HEAD)], width - 2)] if first else [[]]
        line: Line = []
        for column, cell in zip(columns[1:], others, strict=True):
            if not cell:
                continue
            field: Line = [(f"{column} ", _DIM), (cell, "")] if column else [(cell, "")]
            joined = [*line, (" · ", _DIM), *field] if line else field
            if _length(joined) <= width - 4:
                line = joined
                continue
            lines += [[("    ", ""), *line]] if line else []
            *full, line = wrapped(field, width - 4)
            lines += [[("    ", ""), *one] for one in full]
        lines += [[("    ", ""), *line]] if line else []
    return lines


def _length(line: Line) -> int:
    return sum(room_of(text) for text, _ in line)
