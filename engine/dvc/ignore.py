"""Files that DVC ignores: the patterns of `.dvcignore`, interpreted as in DVC 3.67 (dvc/ignore.py).

Patterns have the syntax of `.gitignore`: the last match decides, `!` negates, and nothing below an ignored folder can be re-included.
Patterns of a folder come after those of the folders above it. Paths are relative to the root, with `/`; paths of folders end in `/`.
"""

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
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

    def ignore(self, path: str) -> bool:
        """Whether these patterns ignore PATH itself; the folders above it are not considered."""
        if self.compiled is None:
            name = path[path.rfind("/", 0, -1) + 1 :]
            return (self._at_root if name == path else self._anywhere).fullmatch(name) is not None
        is_folder = path.endswith("/")
        ways = (path[:-1], path) if is_folder else (path,)
        for expression, ignores, folders_only in reversed(self.compiled):
            if (is_folder or not folders_only) and any(expression.match(way) for way in ways):
                return ignores
        return False

    @cached_property
    def _at_root(self) -> re.Pattern[str]:
        """What names at the root plain patterns ignore; names of folders end in `/`."""
        return _names(pattern.removeprefix("/") for pattern in self.patterns)

    @cached_property
    def _anywhere(self) -> re.Pattern[str]:
        return _names(pattern for pattern in self.patterns if not pattern.startswith("/"))


@dataclass
class Ignored:
    """The files that DVC ignores below ROOT."""

    root: Path
    _folders: dict[str, _Rules] = field(default_factory=dict)
    _reached: dict[str, bool] = field(default_factory=dict)
    """Whether DVC includes a folder and all folders above it."""

    def counts(self, path: str) -> bool:
        """Whether DVC includes PATH, given that it includes the folders above it. Raises UserError for an invalid pattern."""
        return not self._rules(path[: path.rfind("/", 0, -1) + 1]).ignore(path)

    def reaches(self, path: str) -> bool:
        """Whether DVC includes PATH and all folders above it."""
        above = path[: path.rfind("/", 0, -1) + 1]
        if above and above not in self._reached:
            self._reached[above] = self.reaches(above)
        return (not above or self._reached[above]) and self.counts(path)

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


def _names(patterns: Iterable[str]) -> re.Pattern[str]:
    """What matches the names that plain patterns match: a pattern with `/` at its end matches folders, others both."""
    ways = (re.escape(pattern).replace(r"\*", ".*").removesuffix("/") + ("/" if pattern.endswith("/") else "/?") for pattern in patterns)
    return re.compile("|".join(ways), re.DOTALL)
