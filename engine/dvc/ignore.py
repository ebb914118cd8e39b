"""Files that DVC ignores: the patterns of `.dvcignore`, interpreted as in DVC 3.67 (dvc/ignore.py).

Patterns have the syntax of `.gitignore`: the last match decides, `!` negates, and nothing below an ignored folder can be re-included.
Patterns of a folder come after those of the folders above it. Paths are relative to the root, with `/`; paths of folders end in `/`.
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
"""Ignored by DVC in every case."""
_PLAIN = re.compile(r"[*/]?[\w.-]+/?")
"""A plain name or suffix pattern, or a name at the root, which needs no pathspec: importing that library takes as long as a plan."""


@dataclass(frozen=True)
class _Rules:
    """The patterns that apply in a folder, those of the root first."""

    patterns: tuple[str, ...]
    compiled: tuple[tuple[re.Pattern[str], bool, bool], ...] | None
    """For each pattern: its regular expression, whether it ignores, and whether it matches folders only; None if all are plain."""
    _names: dict[str, bool] = field(default_factory=dict)

    def ignore(self, path: str) -> bool:
        """Whether these patterns ignore PATH itself; the folders above it are not considered."""
        if self.compiled is None:
            name = path[path.rfind("/", 0, -1) + 1 :]
            if name == path:
                return any(_plainly(name, pattern.removeprefix("/")) for pattern in self.patterns)
            if name not in self._names:
                self._names[name] = any(_plainly(name, pattern) for pattern in self.patterns if not pattern.startswith("/"))
            return self._names[name]
        is_folder = path.endswith("/")
        ways = (path[:-1], path) if is_folder else (path,)
        for expression, ignores, folders_only in reversed(self.compiled):
            if (is_folder or not folders_only) and any(expression.match(way) for way in ways):
                return ignores
        return False


@dataclass
class Ignored:
    """The files that DVC ignores below ROOT."""

    root: Path
    _folders: dict[str, _Rules] = field(default_factory=dict)

    def counts(self, path: str) -> bool:
        """Whether DVC includes PATH, given that it includes the folders above it. Raises UserError for an invalid pattern."""
        return not self._rules(path[: path.rfind("/", 0, -1) + 1]).ignore(path)

    def reaches(self, path: str) -> bool:
        """Whether DVC includes PATH and all folders above it."""
        return all(self.counts(part) for part in _parts(path))

    def _rules(self, folder: str) -> _Rules:
        """The patterns that apply to the entries of FOLDER (empty: the root)."""
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
    """The folders above PATH from the top, then PATH."""
    yield from (path[: found.end()] for found in re.finditer("/", path[:-1]))
    yield path


def _lines(file: Path, name: str) -> dict[str, Location]:
    """The patterns of a file, each with its last location."""
    if not os.path.exists(file):  # noqa: PTH110 - runs for every hashed folder
        return {}
    found: dict[str, Location] = {}
    for number, line in enumerate(file.read_text("utf-8").splitlines(), 1):
        if (pattern := line.strip()) and not pattern.startswith("#"):
            found.pop(pattern, None)  # the last occurrence of a pattern decides
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
            hint = "fix or remove the pattern; the syntax is that of .gitignore"
            raise UserError(f"invalid pattern '{pattern}'", places.get(pattern), hint) from None
        if expression is not None and ignores is not None:
            compiled.append((re.compile(expression), ignores, pattern.endswith("/")))
    return _Rules(patterns, tuple(compiled))


def _plainly(name: str, pattern: str) -> bool:
    """Whether a plain pattern matches NAME, the last component of a path."""
    return fnmatchcase(name.rstrip("/"), pattern.rstrip("/")) and (name.endswith("/") or not pattern.endswith("/"))
