"""Which column of a user's rows is the answer, which ones make the prompt, and which rows lack one of them."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from engine.core.errors import Location, UserError, did_you_mean
from stages.rows.strict_json import type_name

ANSWERS = (
    *("answer", "completion", "output", "response", "reply", "label", "target", "summary", "translation", "category", "class"),
    *("intent", "sentiment", "topic", "tag", "headline"),
)
"""Usual names of columns with answers, the surest first."""

QUESTIONS = ("question", "prompt", "instruction", "input", "query", "text", "body", "message", "document", "article", "review", "content")
"""Usual names of columns that are asked about."""

ABOUT = (
    *("id", "uuid", "key", "index", "lang", "language", "locale", "source", "origin", "channel", "split", "date", "time", "timestamp"),
    *("created", "updated", "at", "year", "version", "license", "url", "link", "file", "filename", "user", "author", "status", "priority"),
)
"""Last words in the names of columns that say something about a row: seldom what is to be learned."""

FEW, SHORT = 20, 30
"""A column with at most so many different values, of at most so many characters and each in two rows on average, holds labels."""

TOLERATED = 0.2
"""The largest share of rows that may lack a column which is used; a spec leaves these rows out."""

MISSING, NULL, BLANK, EMPTY = "is missing", "is null", "is blank", "is an empty list"
_FILLED = {MISSING: "{} is defined", NULL: "{} is not none", BLANK: "{} | trim", EMPTY: "{}"}
"""Expressions over a column that are true where it is not empty in this way, in the order in which they can be evaluated."""


def gap(row: Mapping[str, Any], name: str) -> str | None:
    """How column NAME is empty in ROW; None if it has a value."""
    if name not in row:
        return MISSING
    value = row[name]
    if value is None or value == []:
        return NULL if value is None else EMPTY
    return BLANK if isinstance(value, str) and not value.strip() else None


def where_filled(gaps: Iterable[tuple[str, str]]) -> str:
    """An expression that is false for the rows with GAPS: for each such row its first empty column, and how that is empty."""
    ways: dict[str, set[str]] = {}
    for name, way in gaps:
        ways.setdefault(name, set()).add(way)
    return " and ".join(_FILLED[way].format(name) for name, found in ways.items() for way in _FILLED if way in found)


@dataclass(frozen=True)
class Column:
    """A column of some rows."""

    name: str
    position: int
    rows: int
    """The number of all rows."""
    values: Mapping[int, Any]
    """The values that are not empty, by the number of their row."""
    gaps: Mapping[int, str]
    """How it is empty, by the number of the row."""

    @cached_property
    def texts(self) -> list[str]:
        return [str(value) for value in self.values.values()]

    @cached_property
    def different(self) -> int:
        """The number of different values."""
        return len(set(self.texts))

    @property
    def is_constant(self) -> bool:
        return self.different < 2 and self.rows > 1

    @cached_property
    def is_id(self) -> bool:
        """Whether it identifies rows or what they belong to: by its name, or different in each row, ASCII, and without a space."""
        if list(_words(self.name))[-1:] in (["id"], ["uuid"], ["guid"]):
            return True
        return self.different == len(self.texts) > 1 and all(text.isascii() and " " not in text for text in self.texts)

    @cached_property
    def is_labels(self) -> bool:
        """Whether it holds labels: few different values, all of them short."""
        return 1 < self.different <= min(FEW, len(self.texts) / 2) and max(map(len, self.texts)) <= SHORT

    def unusable(self, asked_for: bool = False) -> str | None:
        """Why it can be neither question nor answer, as a phrase; None if it can. ASKED_FOR: however many rows lack it."""
        if not _is_word(self.name):
            return "is not named by a word"
        if (other := next((value for value in self.values.values() if not isinstance(value, str | int | float)), None)) is not None:
            return f"holds {type_name(other)}"
        if not self.values or (len(self.gaps) > TOLERATED * self.rows and not asked_for):
            return f"is empty in {len(self.gaps)} of {self.rows} rows"
        return None

    @property
    def not_learned(self) -> str | None:
        """Why it cannot be the answer although it is usable, as a phrase; None if it can."""
        if self.is_constant:
            return f"has only one value, {self.texts[0][:SHORT]!r}"
        if any(isinstance(value, bool) for value in self.values.values()):
            return "holds true and false, which are no text"
        return None

    def described(self) -> str:
        """Its name, with the number of its values if it holds labels."""
        return f"{self.name} ({self.different} values)" if self.is_labels else self.name


def _is_word(name: str) -> bool:
    """Whether a template can name the column as a variable."""
    from stages.rows.templates import Expression

    try:
        return name.isidentifier() and Expression(name, "").fields == {name}
    except UserError:
        return False


def words_for(rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Words for the columns of ROWS which a template cannot name, such as `Text of the review`: the column by its word.

    Only columns that each row has: a source would refuse the others. A column without any letter or digit in its name has no word.
    """
    names = dict.fromkeys(name for row in rows for name in row)
    found: dict[str, str] = {}
    for name in names:
        word = re.sub(r"\W+", "_", name.lower()).strip("_")
        word = f"column_{word}" if word[:1].isdigit() else word
        word = word if not word or _is_word(word) else f"{word}_"
        if word and not _is_word(name) and _is_word(word) and word not in {*names, *found} and all(name in row for row in rows):
            found[word] = name
    return found


def conversations_in(rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """The one column of ROWS that holds conversations, by the name under which a layout knows it; empty if there are none, or several."""
    found: dict[str, str] = {}
    for name in dict.fromkeys(name for row in rows for name in row):
        values = [row[name] for row in rows if row.get(name)]
        for layout, keys in _TURNS.items():
            turns = [
                isinstance(value, list) and all(isinstance(turn, Mapping) and keys <= turn.keys() for turn in value) for value in values
            ]
            if turns and all(turns) and all(name in row and layout not in row for row in rows):
                found[name] = layout
    return {layout: name for name, layout in found.items()} if len(found) == 1 else {}


_TURNS = {"messages": {"role", "content"}, "conversations": {"from", "value"}}
"""Names of columns with conversations, and the keys of each turn."""


def columns_of(rows: Sequence[Mapping[str, Any]]) -> list[Column]:
    """The columns of ROWS, in the order in which they first occur."""
    found = []
    for position, name in enumerate(dict.fromkeys(name for row in rows for name in row)):
        gaps = {number: way for number, row in enumerate(rows) if (way := gap(row, name))}
        values = {number: row[name] for number, row in enumerate(rows) if number not in gaps}
        found.append(Column(name, position, len(rows), values, gaps))
    return found


@dataclass(frozen=True)
class Chosen:
    """What a model may learn from rows: one column from others."""

    answer: Column
    why: str
    """Why this column is the answer, as a phrase."""
    others: tuple[Column, ...]
    """Other columns that could be the answer, the likeliest first."""
    asked: tuple[Column, ...]
    left_out: Mapping[str, str]
    """Columns that are not used, each with a phrase that says why."""

    @cached_property
    def incomplete(self) -> dict[int, tuple[str, str]]:
        """The rows that lack a column which is used, by number: the name of the first such column, and how it is empty."""
        found: dict[int, tuple[str, str]] = {}
        for column in (self.answer, *self.asked):
            for number, way in column.gaps.items():
                found.setdefault(number, (column.name, way))
        return found


def choose(rows: Sequence[Mapping[str, Any]], file: str, lines: Sequence[Location], answer: str | None = None) -> Chosen:
    """The answer among the columns of ROWS, and what it is learned from; ANSWER names the column if the user has chosen.

    FILE and LINES, one for each row, locate what is wrong. Raises UserError if no column could be the answer, or none the question.
    """
    columns = columns_of(rows)
    if answer is not None and answer not in {column.name for column in columns}:
        hint = did_you_mean(answer, [column.name for column in columns])
        raise UserError(f"--answer must name a column of {file}, got '{answer}'", lines[0], hint)
    unusable = {column.name: why for column in columns if (why := column.unusable(asked_for=column.name == answer))}
    usable = [column for column in columns if column.name not in unusable]
    not_learned = {column.name: why for column in usable if (why := column.not_learned)}
    ranked = sorted((column for column in usable if column.name not in not_learned), key=_rank)
    if answer is not None:
        if why := unusable.get(answer) or not_learned.get(answer):
            raise UserError(f"column '{answer}' of {file} cannot be the answer: it {why}", _first(answer, columns, lines))
        ranked.sort(key=lambda column: column.name != answer)
    for number, column in enumerate(ranked):
        asked, left_out = _asked(column, usable)
        if asked:
            why = "--answer names it" if answer is not None else _why(column)
            others = () if answer is not None else tuple(other for other in ranked[number + 1 :] if _rank(other)[2] < _FREE)
            return Chosen(column, why, others, asked, {**unusable, **left_out})
        if answer is not None:
            break
    reasons = {**unusable, **not_learned} or dict.fromkeys((column.name for column in columns), "is the only column")
    shown = "; ".join(f"{name} {why}" for name, why in reasons.items())
    raise UserError(
        f"no two columns of {file} could be a question and its answer: {', '.join(column.name for column in columns)}",
        _first(next(iter(reasons)), columns, lines),
        f"{shown}; or edit specs/first.toml, which `engine init` writes without --data",
    )


def _first(name: str, columns: Sequence[Column], lines: Sequence[Location]) -> Location:
    """The line of the first row that lacks column NAME; of the first row if none does."""
    return lines[next((number for column in columns if column.name == name for number in column.gaps), 0)]


def _asked(answer: Column, usable: Sequence[Column]) -> tuple[tuple[Column, ...], dict[str, str]]:
    """The columns that ANSWER is learned from, and the others with a phrase that says why they are left out.

    Columns are added while few rows lack one of them, and while the rows that are left have more than one answer.
    """
    others = [column for column in usable if column is not answer]
    varied = [column for column in others if not column.is_constant]
    telling = [column for column in varied if not column.is_id] or varied
    left_out = {c.name: "is an identifier" if c in varied else "has only one value" for c in others if c not in telling}
    asked, kept = list[Column](), set(answer.values)
    for column in telling:
        left = kept - set(column.gaps)
        if len(left) < (1 - TOLERATED) * len(answer.values) or (len({str(answer.values[n]) for n in left}) < 2 and answer.rows > 1):
            left_out[column.name] = f"is empty in {len(column.gaps)} of {column.rows} rows"
        else:
            asked, kept = [*asked, column], left
    return tuple(asked), left_out


_NAMED, _LABELS, _FREE = 0, 1, 2
_NUMBER = re.compile(r"[-+]?\d+([.,]\d+)?")


def _rank(column: Column) -> tuple[bool, bool, int, bool, float, int]:
    """What sorts columns by how likely they are the answer: their names, then their values; of equal ones, the last column first."""
    words = list(_words(column.name))
    named = [n for n, usual in enumerate(ANSWERS) if usual == column.name.lower()] or [
        len(ANSWERS) + n for n, usual in enumerate(ANSWERS) if usual in words
    ]
    about = words[-1:] != [] and words[-1] in ABOUT
    if named and not about:
        return False, False, _NAMED, False, named[0], -column.position
    # Of labels, those with more values say more about a row; numbers are more often measured than asked for.
    order = -column.different if column.is_labels else 0
    numbers = column.is_labels and all(_NUMBER.fullmatch(text) for text in column.texts)
    sort = _LABELS if column.is_labels else _FREE
    return about or column.name.lower() in QUESTIONS, column.is_id, sort, numbers, order, -column.position


def _why(column: Column) -> str:
    sort = _rank(column)[2]
    return {_NAMED: "its name is usual for answers", _LABELS: "it holds labels", _FREE: "it is the last one of its sort"}[sort]


def _words(name: str) -> Iterator[str]:
    """The words of a name, in lower case: those of `gold_label` and of `goldLabel` are gold and label."""
    return (word.lower() for word in re.findall(r"[A-Z]?[^\W_A-Z]+|[A-Z]+", name))
