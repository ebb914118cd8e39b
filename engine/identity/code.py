"""The code that a step runs: the import closure of its body, with digests of syntax trees without comments and docstrings."""

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
"""The digest of a module, and the names of all modules of this project that it may import."""

OBSERVES = b"\nDECIDES_NO_BYTES = True\n"
"""Marks a module that starts, watches or logs steps without affecting their results; such modules belong to no identity."""

_REMEMBERED = 2000
"""Maximum number of module contents whose digests are cached: enough for several states of the code."""


@dataclass
class Code:
    """The modules below ROOT/stages, each parsed once per object; with a MEMO file, once per content across runs."""

    root: Path
    memo: Path | None = None
    _parsed: dict[str, Parsed | None] = field(default_factory=dict)
    _closures: dict[frozenset[str], dict[str, str]] = field(default_factory=dict)
    _known: dict[str, list[Any]] = field(default_factory=dict)
    """Digest and imports by a hash of name and content, so that a reverted module is not parsed again."""
    _moved: bool = False

    def __post_init__(self) -> None:
        self._known = memo.load(self.memo) or {}

    def save(self) -> None:
        """Cache what was parsed for the next run."""
        if self._moved:
            memo.save(self.memo, dict(list(self._known.items())[-_REMEMBERED:]))
            self._moved = False

    def closure(self, modules: Iterable[str]) -> dict[str, str]:
        """The digests of MODULES and of all modules of this project that they import, transitively, sorted by name."""
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
        """Digest and imports of a module; None if it is not in `stages`, is a package's `__init__`, or is marked with OBSERVES."""
        if name not in self._parsed:
            self._parsed[name] = self._parse(name)
        return self._parsed[name]

    def _parse(self, name: str) -> Parsed | None:
        # A package's __init__ declares parameters and the members of families. Parameters are in the recipe, and following the imports
        # would make every step of a kind depend on all members of its families. A contract test keeps behaviour out of these files.
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
    """A hash of what digests depend on besides the module: this file and the Python version."""
    return hashlib.sha256(sys.version.encode() + Path(__file__).read_bytes()).digest()


def _read(text: bytes, path: Path, name: str) -> Parsed:
    """Digest and imports of a module; raises UserError if TEXT, the content of PATH, is not valid Python."""
    try:
        tree = ast.parse(text, str(path))
    except SyntaxError as error:
        where = Location(str(path), error.lineno, error.offset, (error.text or "").rstrip("\n"))
        raise UserError(f"invalid Python: {error.msg}", where) from None
    return tree_digest(tree), tuple(dict.fromkeys(found for found in _imports(tree, name) if found.partition(".")[0] == PACKAGE))


def _imports(tree: ast.Module, name: str) -> Iterator[str]:
    """Every module that TREE may import, also inside functions; the caller drops names that are not modules."""
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
    """sha256 (64 hex digits) of a syntax tree without comments, formatting, positions and docstrings."""
    return hashlib.sha256(repr(_shape(tree)).encode()).hexdigest()


def _shape(node: Any) -> Any:
    """The tree as a nested tuple; empty fields are omitted, so that a text has the same shape in every Python version."""
    if isinstance(node, ast.AST):
        shape: list[Any] = [type(node).__name__]
        for name in _relevant(node._fields):
            value: Any = getattr(node, name, None)
            if name == "body" and isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                value = _without_docstring(value)
            if value is not None and value != [] and (inner := _shape(value)) is not None:
                shape.append((name, inner))
        return tuple(shape)
    if isinstance(node, list):
        return tuple([_shape(item) for item in node])
    # repr distinguishes 1, 1.0, True and "1".
    return repr(node) if node is not None else None


@cache
def _relevant(fields: tuple[str, ...]) -> tuple[str, ...]:
    """The fields of a syntax node that affect behaviour."""
    return tuple(name for name in fields if name not in ("type_ignores", "kind", "ctx"))


def _without_docstring(body: list[ast.stmt]) -> list[ast.stmt]:
    """BODY without statements that are only a string: docstrings, including those of attributes."""
    return [s for s in body if not (isinstance(s, ast.Expr) and isinstance(s.value, ast.Constant) and isinstance(s.value.value, str))]
