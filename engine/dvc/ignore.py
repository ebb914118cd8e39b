"""Which files DVC leaves out: the patterns of `.dvcignore`, read as DVC 3.67 reads them (dvc/ignore.py).

Patterns are those of `.gitignore`: the last that matches decides, `!` takes back, nothing below an ignored folder comes back. A file in a
folder below the root is laid over those above it. Paths here are relative to the root, with `/`; a folder's path ends in `/`.
"""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

from engine.core.errors import Location, UserError

FILE = ".dvcignore"
_ALWAYS = (".hg/", ".git/", ".git", ".dvc/")
"""What DVC never looks at."""
_PLAIN = re.compile(r"\*?[\w.-]+/?")
"""A name or an ending, of which nothing has to be asked of the library that reads patterns, whose import takes as long as a plan."""


@dataclass(frozen=True)
class _Rules:
    """The patterns that hold in a folder, those of the root first."""

    patterns: tuple[str, ...]
    compiled: tuple[tuple[re.Pattern[str], bool, bool], ...] | None
    """Of each pattern its expression, whether it ignores, and whether it means folders only; None where all are plain names."""
    _names: dict[str, bool] = field(default_factory=dict)

    def ignore(self, path: str) -> bool:
        """Whether these patterns ignore PATH, the folders around it apart."""
        if self.compiled is None:
            name = path[path.rfind("/", 0, -1) + 1 :]
            if name not in self._names:
                self._names[name] = any(_plainly(name, pattern) for pattern in self.patterns)
            return self._names[name]
        is_folder = path.endswith("/")
        ways = (path[:-1], path) if is_folder else (path,)
        for expression, ignores, folders_only in reversed(self.compiled):
            if (is_folder or not folders_only) and any(expression.match(way) for way in ways):
                return ignores
        return False


@dataclass
class Ignored:
    """What DVC leaves out below ROOT."""

    root: Path
    _folders: dict[str, _Rules] = field(default_factory=dict)

    def counts(self, path: str) -> bool:
        """Whether DVC counts PATH, where it counts the folders around it. Raises UserError where a pattern is none."""
        return not self._rules(path[: path.rfind("/", 0, -1) + 1]).ignore(path)

    def reaches(self, path: str) -> bool:
        """Whether DVC counts PATH and every folder around it."""
        return all(self.counts(part) for part in _parts(path))

    def _rules(self, folder: str) -> _Rules:
        """The patterns that hold for what lies in FOLDER (empty: the root)."""
        if folder not in self._folders:
            above = self._rules(folder[: folder.rfind("/", 0, -1) + 1]) if folder else _rules(_ALWAYS, {})
            file = self.root / folder / FILE
            own = _lines(file, f"{folder}{FILE}") if not above.ignore(f"{folder}{FILE}") else {}
            if folder and own:
                from dvc.pathspec_math import change_rule

                own = {change_rule(pattern, folder.rstrip("/")): where for pattern, where in own.items()}
            self._folders[folder] = _rules((*above.patterns, *own), own) if own else above
        return self._folders[folder]


def _parts(path: str) -> Iterator[str]:
    """The folders around PATH from the top, then PATH."""
    yield from (path[: found.end()] for found in re.finditer("/", path[:-1]))
    yield path


def _lines(file: Path, name: str) -> dict[str, Location]:
    """The patterns of a file, each with its last place."""
    if not os.path.exists(file):  # noqa: PTH110 - asked of every folder that is hashed
        return {}
    found: dict[str, Location] = {}
    for number, line in enumerate(file.read_text("utf-8").splitlines(), 1):
        if (pattern := line.strip()) and not pattern.startswith("#"):
            found.pop(pattern, None)  # of a pattern that stands there twice the last decides
            found[pattern] = Location(name, number, source=line)
    return found


def _rules(patterns: tuple[str, ...], places: dict[str, Location]) -> _Rules:
    if all(_PLAIN.fullmatch(pattern) for pattern in patterns):
        return _Rules(patterns, None)
    from pathspec.patterns.gitignore.spec import GitIgnoreSpecPattern

    compiled = []
    for pattern in patterns:
        try:
            expression, ignores = GitIgnoreSpecPattern.pattern_to_regex(pattern)
        except ValueError:
            raise UserError(f"'{pattern}' is not a pattern of .gitignore", places.get(pattern), "DVC cannot read it either") from None
        if expression is not None and ignores is not None:
            compiled.append((re.compile(expression), ignores, pattern.endswith("/")))
    return _Rules(patterns, tuple(compiled))


def _plainly(name: str, pattern: str) -> bool:
    """Whether a name, or an ending behind `*`, matches the last part of a path."""
    return fnmatchcase(name.rstrip("/"), pattern.rstrip("/")) and (name.endswith("/") or not pattern.endswith("/"))
