"""What code a step runs, and a digest of its behaviour: the import closure of its body, as syntax trees without comments and docstrings."""

import ast
import hashlib
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from engine.core import memo
from engine.core.errors import Location, UserError

PACKAGE = "stages"

Parsed = tuple[str, tuple[str, ...]]
"""The digest of a module, and every name of ours that it may import."""

OBSERVES = b"\nDECIDES_NO_BYTES = True\n"
"""What stands in a module that starts, watches or logs a step and decides nothing of its result: it is part of no identity."""

_REMEMBERED = 2000
"""Contents of modules that are remembered: those of a few states of the code."""


@dataclass
class Code:
    """The modules below ROOT/stages; parsed once for the life of this object, and with a MEMO file once for each content they have."""

    root: Path
    memo: Path | None = None
    _parsed: dict[str, Parsed | None] = field(default_factory=dict)
    _closures: dict[frozenset[str], dict[str, str]] = field(default_factory=dict)
    _known: dict[str, list[Any]] = field(default_factory=dict)
    """Digest and imports by name and content: a copy of a module, or one that is again as it was, is not parsed anew."""
    _moved: bool = False

    def __post_init__(self) -> None:
        self._known = memo.load(self.memo) or {}

    def save(self) -> None:
        """Remember what was parsed, for the next run."""
        if self._moved:
            memo.save(self.memo, dict(list(self._known.items())[-_REMEMBERED:]))
            self._moved = False

    def closure(self, modules: Iterable[str]) -> dict[str, str]:
        """Module to digest for MODULES and everything of ours that they import, however deep, in order of name."""
        wanted = frozenset(modules)
        if wanted not in self._closures:
            self._closures[wanted] = self._closure(wanted)
        return self._closures[wanted]

    def _closure(self, modules: Iterable[str]) -> dict[str, str]:
        seen: dict[str, str] = {}
        todo = list(modules)
        while todo:
            name = todo.pop()
            if name in seen or (parsed := self._module(name)) is None:
                continue
            seen[name] = parsed[0]
            todo += parsed[1]
        return dict(sorted(seen.items()))

    def _module(self, name: str) -> Parsed | None:
        """Digest and imports of a module; None for one that is not ours, is a package's declaration, or decides no bytes."""
        if name not in self._parsed:
            self._parsed[name] = self._parse(name)
        return self._parsed[name]

    def _parse(self, name: str) -> Parsed | None:
        # A package's __init__ declares parameters and joins a family; what it declares is in the recipe, and following it would make
        # every step of a kind depend on every member of its families. A contract test keeps behaviour out of these files.
        path = self.root.joinpath(*name.split(".")).with_suffix(".py")
        if name.partition(".")[0] != PACKAGE or not path.is_file():
            return None
        text = path.read_bytes()
        if OBSERVES in text:
            return None
        key = hashlib.sha256(b"\0".join((_reader(), name.encode(), text))).hexdigest()
        if key not in self._known:
            digest, imports = _read(text, path, name)
            self._known[key] = [digest, imports]
            self._moved = True
        return self._known[key][0], tuple(self._known[key][1])


@cache
def _reader() -> bytes:
    """What a digest depends on beside the module itself: this file and Python."""
    return hashlib.sha256(sys.version.encode() + Path(__file__).read_bytes()).digest()


def _read(text: bytes, path: Path, name: str) -> Parsed:
    """Digest and imports of a module; raises UserError where TEXT, which stands in PATH, is no Python."""
    try:
        tree = ast.parse(text, str(path))
    except SyntaxError as error:
        where = Location(str(path), error.lineno, error.offset, (error.text or "").rstrip("\n"))
        raise UserError(f"this module is no Python: {error.msg}", where) from None
    return tree_digest(tree), tuple(dict.fromkeys(found for found in _imports(tree, name) if found.partition(".")[0] == PACKAGE))


def _imports(tree: ast.Module, name: str) -> Iterator[str]:
    """Every module that TREE may import, those inside functions too; names that are no module are sorted out by the caller."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                base = ".".join([*name.split(".")[: -node.level], *([node.module] if node.module else [])])
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


def tree_digest(tree: ast.Module) -> str:
    """sha256 of a syntax tree without comments, formatting, positions and docstrings; 64 hex digits."""
    return hashlib.sha256(repr(_shape(tree)).encode()).hexdigest()


def _shape(node: Any) -> Any:
    """A nested tuple of what the tree says; empty fields are left out, so that one text has one shape in every Python version."""
    if isinstance(node, ast.AST):
        shape: list[Any] = [type(node).__name__]
        for name in _telling(node._fields):
            value: Any = getattr(node, name, None)
            if name == "body" and isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                value = _without_docstring(value)
            if value is not None and value != [] and (inner := _shape(value)) is not None:
                shape.append((name, inner))
        return tuple(shape)
    if isinstance(node, list):
        return tuple([_shape(item) for item in node])
    # repr keeps 1, 1.0, True and "1" apart.
    return repr(node) if node is not None else None


@cache
def _telling(fields: tuple[str, ...]) -> tuple[str, ...]:
    """Those of a node's FIELDS that say something of what it does."""
    return tuple(name for name in fields if name not in ("type_ignores", "kind", "ctx"))


def _without_docstring(body: list[ast.stmt]) -> list[ast.stmt]:
    """BODY without any statement that is only a string: docstrings, also those below attributes."""
    return [s for s in body if not (isinstance(s, ast.Expr) and isinstance(s.value, ast.Constant) and isinstance(s.value.value, str))]
