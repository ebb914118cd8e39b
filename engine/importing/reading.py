"""Reads the keys of a configuration of another tool: each gets exactly one entry in the account, and its meaning becomes a setting."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from typing import Any, Literal

from engine.core.errors import Location, Problem, UserError
from engine.importing.documents import variable_in
from engine.spec.notation import described, dotted, toml
from engine.spec.positions import Key
from engine.spec.tree import Node

Fate = Literal["taken over", "same as the default", "no meaning here", "ignored by the tool", "refused"]
_RANK: Mapping[Fate, int] = {
    "refused": 0,
    "taken over": 1,
    "same as the default": 2,
    "no meaning here": 3,
    "ignored by the tool": 4,
}
"""The fate of a key that has several, such as one of several keys that set the precision, is the first of them."""


@dataclass(frozen=True)
class Entry:
    """What became of one key."""

    key: str
    """With the keys around it: `datasets[0].path`."""
    fate: Fate
    given: str | None
    """The value as the file has it; None if the key is not set."""
    where: Location | None
    ours: tuple[str, ...] = ()
    """The keys of the spec that it sets."""
    why: str = ""
    differs: bool = False
    """Whether what the spec does differs from what the tool does; `why` says how."""

    def as_data(self) -> dict[str, Any]:
        """The entry as one JSON value."""
        return {
            "key": self.key,
            "fate": self.fate,
            "value": self.given,
            "file": self.where.file if self.where else None,
            "line": self.where.line if self.where else None,
            "spec": list(self.ours),
            "why": self.why,
            "differs": self.differs,
        }


@dataclass(frozen=True)
class Setting:
    """A value of the spec, and the keys that it comes from."""

    value: Any
    sources: tuple[str, ...] = ()
    """Keys with their lines, or whose default it is."""
    remark: str = ""
    """How it differs from what the tool does."""


@dataclass
class Draft:
    """An experiment of any tool, in the words of a spec."""

    tool: str
    settings: dict[Key, Setting] = field(default_factory=dict)
    entries: dict[str, Entry] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    """Errors: nothing is written."""
    warnings: list[Problem] = field(default_factory=list)
    datasets: dict[str, Any] = field(default_factory=dict)
    """The tool's own entry of each task's data set."""

    def set(self, path: str | Key, value: Any, sources: Iterable[str] = (), remark: str = "") -> None:
        """Set the key at PATH of the spec, dotted or as a tuple."""
        self.settings[_path(path)] = Setting(value, tuple(sources), remark)

    def value(self, path: str | Key) -> Any:
        """The value at PATH; None if it is not set."""
        found = self.settings.get(_path(path))
        return found.value if found else None

    def drop(self, path: str | Key) -> None:
        """Take back the setting at PATH."""
        self.settings.pop(_path(path), None)

    def plain(self) -> dict[str, Any]:
        """The settings as nested tables."""
        made: dict[str, Any] = {}
        for path, setting in self.settings.items():
            table = made
            for key in path[:-1]:
                table = table.setdefault(str(key), {})
            table[str(path[-1])] = setting.value
        return made


def _path(path: str | Key) -> Key:
    return tuple(path.split(".")) if isinstance(path, str) else path


@dataclass(frozen=True)
class Refusal:
    """A key that a spec cannot honour."""

    feature: str
    """What the key asks for."""
    hint: str
    """The nearest thing that works."""
    off: tuple[Any, ...] = ()
    """Values, besides null and false, that ask for nothing."""
    nearest: bool = False
    """Whether an experiment without the key is an experiment of the same kind; then `--nearest` leaves it out."""


@dataclass(frozen=True)
class Reading:
    """A mapping of a file, while its keys are read."""

    draft: Draft
    node: Node
    known: frozenset[str]
    """The names that the tool's own schema has here."""
    nearest: bool = False
    """Whether the user accepts the nearest thing that works for what cannot be honoured."""
    prefix: str = ""

    def inside(self, node: Node, known: Iterable[str], prefix: str) -> "Reading":
        """The mapping NODE below this one, whose keys the account lists behind PREFIX."""
        return replace(self, node=node, known=frozenset(known), prefix=f"{self.prefix}{prefix}.")

    def given(self, key: str) -> bool:
        """Whether the file sets KEY to anything but null."""
        return self.child(key) is not None

    def child(self, key: str) -> Node | None:
        """The node of KEY; None if it is not set, or null."""
        node = self.node.child(key)
        return node if node is not None and node.content is not None else None

    def get(self, key: str, default: Any = None) -> Any:
        """The value of KEY, or DEFAULT if it is not set; a reference to a variable is a problem."""
        node = self.child(key)
        if node is None:
            return default
        for inner in (node, *(each for _, each in node.walk())):
            if variable := variable_in(inner):
                what = f"{self.prefix}{key} refers to a variable, {variable}: a spec has values only"
                self._problem(what, inner.value, "write the value, or fill it in first: envsubst < FILE > filled.yml")
        return node.plain()

    def number(self, key: str, default: float | None = None) -> float | None:
        """A number, which YAML 1.1 may read as text (`2e-5`)."""
        value = self.get(key, default)
        try:
            if not isinstance(value, bool):
                return None if value is None else float(value) if not isinstance(value, int) else value
        except (TypeError, ValueError):
            pass
        self.wrong(key, "a number")
        return default

    def integer(self, key: str, default: int | None = None) -> int | None:
        """A whole number."""
        value = self.number(key, default)
        if value is not None and value != int(value):
            self.wrong(key, "a whole number")
            return default
        return None if value is None else int(value)

    def flag(self, key: str, default: bool = False) -> bool:
        """true or false."""
        value = self.get(key, default)
        if isinstance(value, str) and value.lower() in ("true", "false", "yes", "no"):
            return value.lower() in ("true", "yes")
        if not isinstance(value, bool | int):
            self.wrong(key, "true or false")
            return default
        return bool(value)

    def names(self, key: str) -> tuple[str, ...]:
        """A list of texts, or one text with commas between them."""
        value = self.get(key)
        if value is None:
            return ()
        given = value.split(",") if isinstance(value, str) else value
        if not isinstance(given, tuple | list) or not all(isinstance(item, str) for item in given):
            self.wrong(key, "a list of names")
            return ()
        return tuple(name.strip() for name in given if name.strip())

    def wrong(self, key: str, wanted: str) -> None:
        """A problem: the value of KEY is not what is WANTED."""
        node = self.child(key)
        given = described(node.plain()) if node else "nothing"
        self._problem(f"{self.prefix}{key} must be {wanted}, not {given}", node.value if node else self.node.value)

    def put(self, path: str | Key, value: Any, *keys: str, why: str = "", differs: bool = False) -> None:
        """Set the key at PATH of the spec to VALUE, which follows from KEYS of the file or their defaults."""
        telling = self._telling(keys)
        self.draft.set(path, value, [self._source(key) for key in telling], why if differs else "")
        for key in telling:
            self._enter(key, "taken over", (dotted(_path(path)),), why, differs)
        self.same(*(key for key in keys if key not in telling), why=f"{telling[0]} says it" if self.given(telling[0]) else "not set")

    def taken(self, *keys: str, ours: str, why: str = "", differs: bool = False) -> None:
        """Note that KEYS are taken over as OURS, a key or table of the spec that is set elsewhere."""
        for key in keys:
            self._enter(key, "taken over", (ours,), why, differs)

    def same(self, *keys: str, why: str) -> None:
        """Note that KEYS ask for what a spec does anyway."""
        for key in keys:
            self._enter(key, "same as the default", (), why)

    def none(self, *keys: str, why: str) -> None:
        """Note that KEYS have no meaning in a spec."""
        for key in keys:
            self._enter(key, "no meaning here", (), why)

    def refuse(self, key: str, feature: str, hint: str, nearest: bool = False) -> None:
        """KEY asks for FEATURE, which cannot be honoured; NEAREST: what the hint names may be used instead if the user accepts it."""
        accepted = nearest and self.nearest
        self._enter(key, "refused", (), f"{feature}: {hint}", accepted)
        node = self.node.child(key) or self.node
        what = f"{self.prefix}{key}: {feature} cannot be honoured"
        further = hint if not nearest or accepted else f"{hint}; --nearest does so"
        if accepted:
            self.draft.warnings.append(Problem(what, node.key, f"used instead: {hint}", "warning"))
        else:
            self._problem(what, node.key, further)

    def conflict(self, first: str, second: str, hint: str) -> None:
        """A problem: two keys set the same thing differently."""
        first, second = sorted((first, second), key=lambda key: self._line(key))
        one, other = self.child(first), self.child(second)
        assert one and other
        line = f" (line {one.key.line})" if one.key.line else ""
        self._problem(f"{second} and {first}{line} set the same thing differently", other.key, hint)

    def one_of(self, *keys: str) -> str | None:
        """The one of KEYS, which are names of one thing, that the file sets; two of different values are a problem."""
        found = [key for key in keys if self.given(key)]
        for other in found[1:]:
            if self.get(other) != self.get(found[0]):
                self.conflict(found[0], other, "keep one of them")
        return found[0] if found else None

    def _line(self, key: str) -> int:
        node = self.child(key)
        return (node.key.line or 0) if node else 0

    def without_meaning(self, table: Mapping[str, str]) -> None:
        """Account for every key of TABLE, which says why it has no meaning here."""
        for key, why in table.items():
            self._enter(key, "no meaning here", (), why)

    def refusals(self, table: Mapping[str, Refusal]) -> None:
        """Account for every key of TABLE: refused if it asks for anything, else the same as the default."""
        for key, refusal in table.items():
            value = self.get(key)
            if value is None or value is False or value in refusal.off or value in ((), {}, ""):
                self._enter(key, "same as the default", (), f"off: {refusal.feature}")
            else:
                self.refuse(key, refusal.feature, refusal.hint, refusal.nearest)

    def strangers(self) -> Iterator[str]:
        """The keys of the file that the tool's schema does not have here."""
        return (key for key in self.node.content if key not in self.known)

    def ignored(self, key: str, why: str, near: Iterable[str]) -> None:
        """The tool itself ignores KEY; a name of NEAR that resembles it is told."""
        self._enter(key, "ignored by the tool", (), why)
        self.draft.warnings.append(self._stranger(key, f"{self.draft.tool} ignores '{self.prefix}{key}': {why}", near, "warning"))

    def unknown(self, key: str, what: str, near: Iterable[str], hint: str) -> None:
        """The tool itself would refuse KEY."""
        self._enter(key, "refused", (), what)
        self.draft.problems.append(self._stranger(key, f"'{self.prefix}{key}' {what}", near, "error", hint))

    def _stranger(self, key: str, what: str, near: Iterable[str], severity: str, hint: str | None = None) -> Problem:
        alike = get_close_matches(key, sorted(near), n=1, cutoff=0.85)
        return Problem(what, self.node.content[key].key, f"did you mean '{alike[0]}'?" if alike else hint, severity)

    def rest(self) -> None:
        """Account for keys below a key that has an entry: they share its fate."""
        for path, node in self.node.walk():
            name = self.prefix + dotted(path)
            if isinstance(path[-1], int) or name in self.draft.entries:
                continue
            above = next((e for n in range(len(path) - 1, 0, -1) if (e := self.draft.entries.get(self.prefix + dotted(path[:n])))), None)
            if above:
                self.draft.entries[name] = replace(above, key=name, given=_shown(node), where=node.key)

    def _enter(self, key: str, fate: Fate, ours: Sequence[str] = (), why: str = "", differs: bool = False) -> None:
        name = self.prefix + dotted((key,))
        node = self.node.child(key)
        given, where = (_shown(node), node.key) if node is not None else (None, None)
        before = self.draft.entries.get(name)
        entry = Entry(name, fate, given, where, tuple(ours), why, differs)
        if before:
            first, second = (before, entry) if _RANK[before.fate] <= _RANK[fate] else (entry, before)
            merged = tuple(dict.fromkeys((*before.ours, *ours)))
            entry = replace(first, ours=merged, why=first.why or second.why, differs=before.differs or differs)
        self.draft.entries[name] = entry

    def _telling(self, keys: Sequence[str]) -> Sequence[str]:
        """Those of KEYS that the file sets; the first of them if it sets none."""
        return [key for key in keys if self.given(key)] or keys[:1]

    def _source(self, key: str) -> str:
        node = self.child(key)
        if node is None:
            return f"default of {self.prefix}{key}"
        return f"{self.prefix}{key}" + (f", line {node.key.line}" if node.key.line else "")

    def _problem(self, what: str, where: Location | None, hint: str | None = None) -> None:
        problem = Problem(what, where, hint)
        if problem not in self.draft.problems:
            self.draft.problems.append(problem)


def _shown(node: Node) -> str:
    """A value as the table shows it, in one short line."""
    if isinstance(node.content, dict):
        return "{…}" if node.content else "{}"
    if isinstance(node.content, tuple) and any(isinstance(item.content, dict) for item in node.content):
        return "[…]"
    text = "null" if node.content is None else node.content if isinstance(node.content, str) else toml(node.plain())
    text = " ".join(str(text).split())
    return text if len(text) <= 60 else f"{text[:59]}…"


def finished(draft: Draft) -> Draft:
    """DRAFT; raises UserError with all its problems."""
    if draft.problems:
        raise UserError(sorted(draft.problems, key=lambda p: (p.where.file, p.where.line or 0) if p.where else ("", 0)))
    return draft
