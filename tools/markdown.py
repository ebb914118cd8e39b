"""Pieces of the generated pages."""

from collections.abc import Sequence

GENERATED = "<!-- Written by `make reference` from the code; an edit here is lost. -->"


def cell(text: str | None) -> str:
    """TEXT as a table's cell: one line, whose bars end no cell."""
    return " ".join((text or "").split()).replace("|", "\\|")


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table, or nothing where it has no rows."""
    if not rows:
        return ""
    return "\n".join(f"| {' | '.join(row)} |" for row in (columns, ["---"] * len(columns), *rows))
