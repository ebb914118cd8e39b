"""The blocks of a page: sections of tables, pictures, remarks, commands, rows of tokens and predictions."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True)
class Table:
    """Rows of text; columns of numbers are right-aligned."""

    sort: ClassVar[str] = "table"
    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Picture:
    """An SVG in the page's colours, with a caption that is also its text alternative."""

    sort: ClassVar[str] = "picture"
    name: str
    caption: str
    svg: str


@dataclass(frozen=True)
class Statement:
    """A sentence that says what the results mean."""

    sort: ClassVar[str] = "statement"
    text: str


@dataclass(frozen=True)
class Remark:
    """A sentence, such as what is missing and which command builds it."""

    sort: ClassVar[str] = "remark"
    text: str


@dataclass(frozen=True)
class Commands:
    """Shell commands, one per line."""

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
    """The predictions of several models for one prompt."""

    sort: ClassVar[str] = "answers"
    caption: str
    prompt: str
    reference: str
    answers: Sequence[tuple[str, Sequence[tuple[str, bool]]]]
    """Pairs of model and prediction, in pieces, each with whether it differs from the reference."""


Block = Table | Picture | Statement | Remark | Commands | TokenRow | Answers


@dataclass(frozen=True)
class Section:
    """A heading and the blocks below it."""

    anchor: str
    title: str
    blocks: Sequence[Block]
    folded: bool = False
    """Whether the page shows the blocks only when a reader opens them."""
