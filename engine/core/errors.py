"""Errors that the user can fix: what is wrong, where, and how to fix it."""

import errno
import re
from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches

_OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""Characters that a terminal obeys rather than shows: controls other than tab and newline, and those that reorder text."""


def visible(text: str) -> str:
    """TEXT, which may come from data, as a terminal may print it: characters that it would obey are written as escapes, such as `\\x1b`."""
    return _OBEYED.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)


def visible_json(text: str) -> str:
    """The JSON in TEXT with the same characters written as JSON escapes, so that its values stay what they are."""
    return _OBEYED.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


@dataclass(frozen=True)
class Location:
    """A place in a text file; line and column count from 1, and `source` is the line itself."""

    file: str
    line: int | None = None
    column: int | None = None
    source: str | None = None
    length: int = 1

    def __str__(self) -> str:
        return ":".join(str(part) for part in (self.file, self.line, self.column) if part is not None)


@dataclass(frozen=True)
class Problem:
    """One problem: what is wrong, where, and how to fix it."""

    what: str
    where: Location | None = None
    hint: str | None = None
    severity: str = "error"
    """`error`, or `warning` if nothing is rejected."""

    def __str__(self) -> str:
        lines = [f"{self.severity}: {self.what}"]
        if self.where:
            lines.append(f"  --> {self.where}")
            lines += self._excerpt(self.where)
        if self.hint:
            lines.append(f"  hint: {self.hint}")
        return visible("\n".join(lines))

    @staticmethod
    def _excerpt(where: Location) -> list[str]:
        """The source line with a caret below the offending part, tabs kept so that the caret stays aligned."""
        if where.source is None or where.line is None:
            return []
        gutter = " " * len(str(where.line))
        lines = [f"  {where.line} | {where.source}"]
        if where.column is not None:
            before = "".join("\t" if c == "\t" else " " for c in where.source[: where.column - 1])
            lines.append(f"  {gutter} | {before}{'^' * max(1, where.length)}")
        return lines


class UserError(Exception):
    """An error that the user can fix: printed without a traceback, exit code 1."""

    def __init__(self, what: str | Iterable[Problem], where: Location | None = None, hint: str | None = None) -> None:
        self.problems: tuple[Problem, ...] = (Problem(what, where, hint),) if isinstance(what, str) else tuple(what)
        super().__init__("\n\n".join(str(problem) for problem in self.problems))


_NO_ROOM = {errno.ENOSPC: "the disk is full", errno.EDQUOT: "your disk quota is used up", errno.EFBIG: "the file exceeds the size limit"}


def no_room(error: OSError) -> UserError | None:
    """The UserError for an OSError that concerns a file or a lack of space; None for any other OSError."""
    if error.errno not in _NO_ROOM:
        return UserError(f"{error.filename}: {error.strerror}") if error.filename and error.strerror else None
    what = f" while writing {error.filename}" if error.filename else ""
    return UserError(f"{_NO_ROOM[error.errno]}{what}", hint="free some disk space (engine gc), then run the same command again")


_MOST_WORDS, _FEW = 24, 8
"""Of more known words than the first number, a hint lists only the second number."""


def did_you_mean(word: str, known: Iterable[str]) -> str | None:
    """A hint that names the closest known word; if none is close, it lists the known words, only the most similar ones of a long list."""
    words = sorted(set(known))
    if near := get_close_matches(word, words, n=1, cutoff=0.6):
        return f"did you mean '{near[0]}'?"
    if len(words) > _MOST_WORDS:
        alike = [item for item in words if word and item.startswith(word)] or sorted(get_close_matches(word, words, n=_FEW, cutoff=0.0))
        words = [*alike[:_FEW], f"and {len(words) - len(alike[:_FEW])} more"]
    return f"known: {', '.join(words)}" if words else None
