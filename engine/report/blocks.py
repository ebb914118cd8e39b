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
    """The text of a row in pieces, each with whether it is supervised."""

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
    differing: Sequence[str] = ()
    """The models whose predictions are not the reference, apart from space around them."""


@dataclass(frozen=True)
class AnswerRows:
    """Rows of one task with the predictions of all models; a page shows the first ones, and the rest when a reader asks for it."""

    sort: ClassVar[str] = "rows"
    task: str
    rows: Sequence[Answers]
    shown: int


@dataclass(frozen=True)
class Filter:
    """Search and filter of the rows of all `AnswerRows`, for readers of the page with scripts."""

    sort: ClassVar[str] = "filter"
    tasks: Sequence[str]
    models: Sequence[str]


Block = Table | Picture | Statement | Remark | Commands | TokenRow | AnswerRows | Filter


@dataclass(frozen=True)
class Section:
    """A heading and the blocks below it."""

    anchor: str
    title: str
    blocks: Sequence[Block]
    folded: bool = False
    """Whether the page shows the blocks only when a reader opens them."""
