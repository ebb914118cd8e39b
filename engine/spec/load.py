"""Loads specs: reads TOML files, merges them through `extends`, and validates the result; every problem has its location."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from os.path import normpath
from pathlib import Path

from engine.core.errors import Location, Problem, UserError, did_you_mean
from engine.core.gc_pause import without_collection
from engine.core.part import LONGEST_NAME, Part
from engine.spec import tree
from engine.spec.notation import described
from engine.spec.problems import validated
from engine.spec.sections import Experiment, Spec, Sweep
from engine.spec.sweep import Point, expanded, resource_problems
from engine.spec.tree import Node


def load_spec(path: Path, workspace: Path) -> Spec:
    """The spec at PATH, or the first point of its sweep; raises UserError with every problem in its files."""
    root = _lexical(workspace)
    return _load(_anchored(path, root), _Reader(root, _Shared()))[0]


def _load(file: Path, reader: "_Reader") -> tuple[Spec, ...]:
    """The spec in FILE, or one spec for each point of its sweep."""
    if not file.exists():
        raise UserError(f"file not found: {reader.name(file)}", hint=_neighbour(file))
    document = reader.read(file, ())
    name, files = reader.name(file), tuple(reader.documents)
    sweep = document.child("sweep")
    if sweep is None or not isinstance(sweep.content, dict):
        return (Spec(name, validated(document, files, Experiment), document, files),)
    return _swept(name, document, files)


def _swept(name: str, document: Node, files: tuple[str, ...]) -> tuple[Spec, ...]:
    """A spec for each point of the sweep in DOCUMENT; raises UserError with the problems of all points, each once."""
    section = replace(document, content={"sweep": document.content["sweep"]})
    validated(section, files, _SweepAlone)
    specs, found = [], dict[tuple[str, Location | None], Problem]()
    for point, laid_over in expanded(document):
        try:
            spec = Spec(name, validated(laid_over, files, Experiment), laid_over, files, point)
            specs.append(spec)
            wrong = [*resource_problems(point, laid_over, spec.experiment)]
        except UserError as error:
            wrong = [_at_point(problem, point) for problem in error.problems]
        for problem in wrong:
            found.setdefault((problem.what, problem.where), problem)
    if wrong := [*found.values()] or [*_alike(specs)]:
        raise UserError(wrong)
    return tuple(specs)


def _at_point(problem: Problem, point: Point) -> Problem:
    """PROBLEM with a hint that names POINT, the first that has it: its location may be far from the sweep that causes it."""
    return problem if problem.hint or not point.labels else replace(problem, hint=f"at point {'-'.join(point.labels)} of the sweep")


class _SweepAlone(Part):
    """Validates the sweep section alone: the rest of the spec is complete only with the values of a point."""

    sweep: Sweep


def _alike(specs: Sequence[Spec]) -> Iterator[Problem]:
    """A problem for each pair of points that are equal although written differently, and for each name that is too long."""
    first: dict[str, Spec] = {}
    for spec in specs:
        where = spec.where(*next(iter(spec.point.values))) if spec.point and spec.point.values else Location(spec.path)
        other = first.setdefault(spec.experiment.model_dump_json(serialize_as_any=True), spec)
        if other is not spec:
            yield Problem(f"points {other.name} and {spec.name} are equal: all their values are the same", where, "remove one of them")
        elif len(spec.name) > LONGEST_NAME:
            what = f"the name {spec.name} is too long: {len(spec.name)} characters, at most {LONGEST_NAME} are allowed"
            yield Problem(what, where, 'list the points under [[sweep.points]], each with a short `name = "..."`')


def load_specs(paths: Iterable[Path], workspace: Path) -> tuple[Spec, ...]:
    """The specs at PATHS, each file once; raises one UserError with the problems of all files."""
    specs, found = load_each(paths, workspace)
    if found:
        raise UserError(found)
    return specs


@without_collection
def load_each(paths: Iterable[Path], workspace: Path) -> tuple[tuple[Spec, ...], list[Problem]]:
    """The specs at PATHS that are valid, each file once, and every problem of the others."""
    specs: list[Spec] = []
    found: dict[Problem, None] = {}
    root, shared = _lexical(workspace), _Shared()
    for file in dict.fromkeys(_anchored(path, root) for path in paths):
        try:
            specs += _load(file, _Reader(root, shared))
        except UserError as error:
            found |= dict.fromkeys(error.problems)  # report the problems of a part that several specs extend only once
    return tuple(specs), [*found, *_same_names(specs)]


def _lexical(path: Path) -> Path:
    """PATH made absolute without following links, so that paths through a linked folder stay as the user wrote them."""
    return Path(normpath(path.absolute()))


def _anchored(path: Path, workspace: Path) -> Path:
    """PATH made absolute below WORKSPACE, even if only one of the two was given through a link."""
    file = _lexical(path)
    if file.is_relative_to(workspace) or not path.resolve().is_relative_to(workspace.resolve()):
        return file
    return workspace / path.resolve().relative_to(workspace.resolve())


def _same_names(specs: Iterable[Spec]) -> Iterator[Problem]:
    """A problem for each pair of specs with the same name: different steps would share a name."""
    first: dict[str, Spec] = {}
    named = [(name, spec) for spec in specs for name in dict.fromkeys((spec.stem, spec.name))]
    for name, spec in named:
        other = first.setdefault(name, spec)
        if other.path != spec.path:
            what, where = f"{other.path} and {spec.path} are both named '{name}'", spec.where("experiment", "name")
            if where != (there := other.where("experiment", "name")):
                hint = f"the other name is at {there}; rename one of the experiments"
            else:
                # One extends the other, or both extend a part that sets the name: the spec without its own name is at fault.
                nameless = spec if where.file != spec.path else other
                what, where, hint = (
                    f"{what}, set at {there}",
                    Location(nameless.path),
                    'set a different experiment.name = "..." in this file',
                )
            yield Problem(what, where, hint)


@dataclass(frozen=True)
class _Shared:
    """A cache of files read and merged once for all specs of one workspace."""

    merged: dict[Path, tuple[Node, dict[str, Node]]] = field(default_factory=dict)
    """By file: the file merged over the files that it extends, and all files read for it, by name."""
    stacked: dict[tuple[Path, ...], Node] = field(default_factory=dict)
    """By the files of one `extends`: all of them merged, later ones over earlier ones."""
    extended: dict[tuple[Path, str], Path] = field(default_factory=dict)
    """The file that an entry of `extends` refers to, by the extending file's folder and the entry."""


@dataclass(frozen=True)
class _Reader:
    """Reads the files of one spec, each once."""

    workspace: Path
    shared: _Shared
    documents: dict[str, Node] = field(default_factory=dict)
    """The content of each file without what it extends, by name, in reading order."""

    def name(self, file: Path) -> str:
        """The file's path as shown in messages: relative to the workspace if inside."""
        return file.relative_to(self.workspace).as_posix() if file.is_relative_to(self.workspace) else file.as_posix()

    def read(self, file: Path, chain: tuple[Path, ...], extended_at: Location | None = None) -> Node:
        """FILE merged over what it extends; CHAIN: the files that extend it, outermost first; EXTENDED_AT: the entry that names it."""
        if file in chain:
            names = " extends ".join(self.name(item) for item in (*chain[chain.index(file) :], file))
            raise UserError(f"files extend each other in a cycle: {names}", extended_at, "remove one of these from its `extends`")
        if file not in self.shared.merged:
            # Only files without problems are cached, so that each spec that extends a broken part reports its problems.
            self.shared.merged[file] = self._merge(file, chain, extended_at)
        merged, documents = self.shared.merged[file]
        self.documents.update(documents)
        return merged

    def _merge(self, file: Path, chain: tuple[Path, ...], extended_at: Location | None) -> tuple[Node, dict[str, Node]]:
        """FILE merged over what it extends, and all files that were read for it."""
        name = self.name(file)
        own = self.documents[name] = tree.read(file, name, extended_at)
        found: list[Problem] = []
        below: list[tuple[Path, Node]] = []
        for entry in _entries(own):
            try:
                part = self._extended(file, entry)
                below.append((part, self.read(part, (*chain, file), entry.value)))
            except UserError as error:
                found += error.problems
        if found:
            raise UserError(dict.fromkeys(found))
        documents = {name: own}
        for part, _ in below:
            documents |= self.shared.merged[part][1]
        content = {key: node for key, node in own.content.items() if key != "extends"}
        return reduce(tree.override, [*self._stacked(below), replace(own, content=content)]), documents

    def _stacked(self, below: Sequence[tuple[Path, Node]]) -> list[Node]:
        """Everything that a file extends, merged into one document; empty if it extends nothing."""
        names = tuple(path for path, _ in below)
        if names and names not in self.shared.stacked:
            self.shared.stacked[names] = reduce(tree.override, [node for _, node in below])
        return [self.shared.stacked[names]] if names else []

    def _extended(self, file: Path, entry: Node) -> Path:
        """The file that an entry of `extends` refers to; raises UserError if it is missing or a relative path out of the workspace."""
        key = file.parent, entry.content
        if key not in self.shared.extended:
            self.shared.extended[key] = self._found(file, entry)
        return self.shared.extended[key]

    def _found(self, file: Path, entry: Node) -> Path:
        given = entry.content
        found = _lexical(file.parent / given)
        if not Path(given).is_absolute() and not found.is_relative_to(self.workspace):
            hint = f"use a path inside it, or the absolute path: {found.as_posix()}"
            raise UserError(f"'{given}' is outside the workspace", entry.value, hint)
        if not found.is_file():
            hint = _neighbour(found) or f"paths in `extends` are relative to {self.name(file)}"
            raise UserError(f"file not found: {self.name(found)}", entry.value, hint)
        return found


def _neighbour(missing: Path) -> str | None:
    """A hint with the TOML files in the same folder that the user may have meant."""
    folder = missing.parent
    return did_you_mean(missing.name, [item.name for item in folder.glob("*.toml")]) if folder.is_dir() else None


def _entries(document: Node) -> tuple[Node, ...]:
    """The entries of `extends`; raises UserError unless it is an array of strings."""
    extends = document.content.get("extends")
    if extends is None:
        return ()
    entries: tuple[Node, ...] = extends.content if isinstance(extends.content, tuple) else (extends,)
    wrong = [item for item in entries if not (isinstance(extends.content, tuple) and isinstance(item.content, str))]
    if wrong:
        hint = 'write extends = ["parts/one.toml", "parts/two.toml"]'
        raise UserError(Problem(f"extends must be an array of paths, not {described(item.plain())}", item.value, hint) for item in wrong)
    return entries
