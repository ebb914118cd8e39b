"""What a page is made of: sections of tables, pictures, remarks, commands and rows of tokens."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True)
class Table:
    """Rows of texts; a column of numbers is set to the right."""

    sort: ClassVar[str] = "table"
    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Picture:
    """An SVG whose ink is the page's own, and what it shows, for those who do not see it."""

    sort: ClassVar[str] = "picture"
    name: str
    caption: str
    svg: str


@dataclass(frozen=True)
class Remark:
    """A sentence, such as what is missing and which command makes it."""

    sort: ClassVar[str] = "remark"
    text: str


@dataclass(frozen=True)
class Commands:
    """Lines for a shell."""

    sort: ClassVar[str] = "commands"
    lines: Sequence[str]


@dataclass(frozen=True)
class TokenRow:
    """One row as tokens, each with whether it is supervised."""

    sort: ClassVar[str] = "tokens"
    caption: str
    pieces: Sequence[tuple[str, bool]]


@dataclass(frozen=True)
class Answers:
    """What several models answered to one prompt."""

    sort: ClassVar[str] = "answers"
    caption: str
    prompt: str
    reference: str
    answers: Sequence[tuple[str, str]]
    """Model and answer."""


Block = Table | Picture | Remark | Commands | TokenRow | Answers


@dataclass(frozen=True)
class Section:
    """A heading and what stands below it."""

    anchor: str
    title: str
    blocks: Sequence[Block]
