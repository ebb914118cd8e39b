"""Renders the sections as HTML and as Markdown, and writes both; Jinja is imported on first use."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from engine.core.errors import UserError, visible
from engine.core.markdown import inline
from engine.report.blocks import Picture, Section, Table

HTML, MARKDOWN, PICTURES = "report.html", "report.md", "pictures"


def html(title: str, sections: Sequence[Section], stamp: str | None = None) -> str:
    """The HTML page: one self-contained file; every value is escaped. With STAMP it reloads itself when its server names another."""
    from markupsafe import Markup

    return _render("page.html.jinja", True, title, sections, picture=lambda picture: Markup(picture.svg), stamp=stamp)


def markdown(title: str, sections: Sequence[Section]) -> str:
    """The Markdown page; its pictures are separate files."""
    return _render("page.md.jinja", False, title, sections, picture=lambda picture: f"{PICTURES}/{picture.name}.svg")


def _render(template: str, escapes: bool, title: str, sections: Sequence[Section], **helpers: Any) -> str:
    from jinja2 import PackageLoader, StrictUndefined
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    environment = ImmutableSandboxedEnvironment(
        loader=PackageLoader("engine.report", "."),
        autoescape=escapes,
        undefined=StrictUndefined,
        finalize=lambda value: visible(value) if isinstance(value, str) and not hasattr(value, "__html__") else value,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"numeric": _numeric, "cell": inline, "fenced": _fenced, "bold": _bold}
    return environment.get_template(template).render(title=title, sections=sections, **helpers).rstrip("\n") + "\n"


def _numeric(table: Table) -> list[bool]:
    """Whether all cells of a column are numbers; per column, so that a content address of digits only does not count as a number."""
    return [all(_is_number(row[place]) for row in table.rows) for place in range(len(table.columns))]


def _is_number(text: str) -> bool:
    return re.match(r"^[+-]?[<\s]*[\d.,]+( ?%| [GMK]iB| \[.*\])?( [*~ ])?$|^\[.*\]$|^–$", text) is not None


def _fenced(text: str) -> str:
    """TEXT as a literal block, with a fence longer than any in the text."""
    fence = "`" * max(3, 1 + max((len(found) for found in re.findall("`+", text)), default=0))
    return f"{fence}text\n{text}\n{fence}"


def _bold(pieces: Sequence[tuple[str, bool]]) -> str:
    """Tokens in one line, the supervised ones bold, adjacent ones merged."""
    runs: list[tuple[str, bool]] = []
    for text, learned in pieces:
        if runs and runs[-1][1] == learned:
            runs[-1] = (runs[-1][0] + text, learned)
        else:
            runs.append((text, learned))
    return "".join(f"<b>{inline(text)}</b>" if learned else inline(text) for text, learned in runs)


def write(folder: Path, title: str, sections: Sequence[Section]) -> list[Path]:
    """Write both pages and the pictures into FOLDER; returns the files, the HTML page first. Raises UserError if it cannot be created.

    Pictures of an earlier report there are removed; other files stay.
    """
    pictures = [block for section in sections for block in section.blocks if isinstance(block, Picture)]
    texts = {HTML: html(title, sections), MARKDOWN: markdown(title, sections)}
    texts |= {f"{PICTURES}/{picture.name}.svg": _alone(picture.svg) for picture in pictures}
    try:
        (folder / PICTURES).mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError, PermissionError) as error:
        raise UserError(f"cannot write to the folder {folder}: {error.strerror}", hint="give another one with --output") from None
    for stale in _earlier(folder) - {folder / name for name in texts}:
        stale.unlink(missing_ok=True)
    for name, text in texts.items():
        (folder / name).write_text(text, "utf-8")
    return [folder / name for name in texts]


_SCHEME = "<style>svg{color:#1c2733}@media(prefers-color-scheme:dark){svg{color:#dde3ea;--ground:#14191f}}</style>"
"""In every picture that is a file of its own: it follows the reader's light or dark colour scheme."""


def _earlier(folder: Path) -> set[Path]:
    """The pictures that an earlier report has written into FOLDER: its Markdown page shows them, and they begin as its pictures do."""
    try:
        page = (folder / MARKDOWN).read_text("utf-8", "replace")
    except OSError:
        return set()
    named = {folder / PICTURES / name for name in re.findall(rf"^!\[.*\]\({PICTURES}/([^/()]+\.svg)\)$", page, re.MULTILINE)}
    return {path for path in named if path.is_file() and _SCHEME in path.read_text("utf-8", "replace")}


def _alone(svg: str) -> str:
    """A picture for a file of its own."""
    return re.sub(r"(<svg[^>]*>)", lambda found: found[1] + _SCHEME, svg, count=1)
