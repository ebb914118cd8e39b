"""Specs are loaded: TOML files are read, merged through `extends`, and checked; every problem is shown where it stands."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, reduce
from os.path import normpath
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from engine.core.errors import Location, Problem, UserError, did_you_mean
from engine.core.gc_pause import without_collection
from engine.core.part import LONGEST_NAME, Part
from engine.spec import tree
from engine.spec.notation import described
from engine.spec.positions import Key
from engine.spec.problems import problems
from engine.spec.references import reference_problems
from engine.spec.sections import Experiment, Sweep
from engine.spec.sweep import Point, expanded, resource_problems
from engine.spec.tree import Node

P = TypeVar("P", bound=Part)


@dataclass(frozen=True)
class Spec:
    """One experiment, the files that it was read from, and where each value that they give stands."""

    path: str
    """Relative to the workspace when inside, else absolute; with forward slashes."""
    experiment: Experiment
    document: Node
    files: tuple[str, ...]
    """All TOML files that were read, in that order."""
    point: Point | None = None
    """Which point of a sweep it is."""

    @property
    def stem(self) -> str:
        """The experiment's name as the file gives it; all points of a sweep have the same."""
        return self.experiment.experiment.name

    @property
    def name(self) -> str:
        """The experiment's name; a point of a sweep is named by its values too."""
        return "-".join((self.stem, *(self.point.labels if self.point else ())))

    @property
    def takes_back(self) -> bool:
        """Whether it takes back the sweep of a spec that it extends: then it is a point in all but name."""
        return "sweep" in self.document.content

    def where(self, *path: str | int) -> Location:
        """Where the value at PATH stands, or the nearest table around it that a file gives, or else the spec itself."""
        node = self.document.nearest(path)
        return Location(self.path) if node is self.document else node.value

    @cached_property
    def origins(self) -> Mapping[Key, Location]:
        """The place of every value that the files give; the bare name of a family's member is its kind too."""
        return _origins(self.document, self.experiment)


def load_spec(path: Path, workspace: Path) -> Spec:
    """The spec at PATH, of a sweep its first point; raises UserError with every problem that its files have."""
    root = _lexical(workspace)
    return _load(_anchored(path, root), _Reader(root, _Shared()))[0]


def _load(file: Path, reader: "_Reader") -> tuple[Spec, ...]:
    """The spec in FILE, or one for each point of its sweep."""
    if not file.exists():
        raise UserError(f"no such file: {reader.name(file)}", hint=_neighbour(file))
    document = reader.read(file, ())
    name, files = reader.name(file), tuple(reader.documents)
    sweep = document.child("sweep")
    if sweep is None or not isinstance(sweep.content, dict):
        return (Spec(name, _validated(document, files), document, files),)
    return _swept(name, document, files)


def _swept(name: str, document: Node, files: tuple[str, ...]) -> tuple[Spec, ...]:
    """A spec for each point of the sweep of DOCUMENT; raises UserError with the problems of all of them, each once."""
    section = replace(document, content={"sweep": document.content["sweep"]})
    _valid(section, files, _SweepAlone)
    specs, found = [], dict[tuple[str, Location | None], Problem]()
    for point, laid_over in expanded(document):
        try:
            spec = Spec(name, _validated(laid_over, files), laid_over, files, point)
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
    """PROBLEM, which may stand far from the sweep that makes it, with the first point that has it."""
    return problem if problem.hint or not point.labels else replace(problem, hint=f"at the point {'-'.join(point.labels)} of the sweep")


class _SweepAlone(Part):
    """A spec of which nothing but the sweep is looked at: only with the values of a point is the rest whole."""

    sweep: Sweep


def _alike(specs: Sequence[Spec]) -> Iterator[Problem]:
    """Points that are the same although they are written in another way, and names that are too long."""
    first: dict[str, Spec] = {}
    for spec in specs:
        where = spec.where(*next(iter(spec.point.values))) if spec.point and spec.point.values else Location(spec.path)
        other = first.setdefault(spec.experiment.model_dump_json(serialize_as_any=True), spec)
        if other is not spec:
            yield Problem(
                f"the points {other.name} and {spec.name} are the same: all their values are equal", where, "leave one of them out"
            )
        elif len(spec.name) > LONGEST_NAME:
            what = f"the name {spec.name} has {len(spec.name)} characters, and {LONGEST_NAME} is the most"
            yield Problem(what, where, 'list the points under [[sweep.points]], each with a short `name = "..."`')


def load_specs(paths: Iterable[Path], workspace: Path) -> tuple[Spec, ...]:
    """The specs at PATHS, each file once; raises one UserError with every problem of all of them."""
    specs, found = load_each(paths, workspace)
    if found:
        raise UserError(found)
    return specs


@without_collection
def load_each(paths: Iterable[Path], workspace: Path) -> tuple[tuple[Spec, ...], list[Problem]]:
    """The specs at PATHS that can be read, each file once, and every problem of the others."""
    specs: list[Spec] = []
    found: dict[Problem, None] = {}
    root, shared = _lexical(workspace), _Shared()
    for file in dict.fromkeys(_anchored(path, root) for path in paths):
        try:
            specs += _load(file, _Reader(root, shared))
        except UserError as error:
            found |= dict.fromkeys(error.problems)  # a part that several specs extend says its problems once
    return tuple(specs), [*found, *_same_names(specs)]


def _lexical(path: Path) -> Path:
    """PATH made absolute without following links, so that a linked folder keeps the place that the user gave it."""
    return Path(normpath(path.absolute()))


def _anchored(path: Path, workspace: Path) -> Path:
    """PATH made absolute below WORKSPACE, even where only one of the two was given through a link."""
    file = _lexical(path)
    if file.is_relative_to(workspace) or not path.resolve().is_relative_to(workspace.resolve()):
        return file
    return workspace / path.resolve().relative_to(workspace.resolve())


def _same_names(specs: Iterable[Spec]) -> Iterator[Problem]:
    """Two specs with one name would make the same steps of different things."""
    first: dict[str, Spec] = {}
    named = [(name, spec) for spec in specs for name in dict.fromkeys((spec.stem, spec.name))]
    for name, spec in named:
        other = first.setdefault(name, spec)
        if other.path != spec.path:
            what, where = f"{other.path} and {spec.path} are both named '{name}'", spec.where("experiment", "name")
            if where != (there := other.where("experiment", "name")):
                hint = f"the name stands at {there} too; give one of the two specs another name"
            else:
                # One extends the other, or both a part with the name: the line that they share is the one that is right.
                nameless = spec if where.file != spec.path else other
                what, where, hint = (
                    f"{what}, which stands at {there}",
                    Location(nameless.path),
                    'give this file a name of its own: experiment.name = "..."',
                )
            yield Problem(what, where, hint)


def _validated(document: Node, files: tuple[str, ...]) -> Experiment:
    """The experiment that DOCUMENT describes; raises UserError with all problems, ordered as they stand in FILES."""
    return _valid(document, files, Experiment)


def _valid(document: Node, files: tuple[str, ...], part: type[P]) -> P:
    data, found, experiment = document.plain(), [], None
    try:
        experiment = part.model_validate(data)
    except ValidationError as error:
        found = problems(error.errors(), document, part)
    paths = {path for path, _ in found}
    found += [(path, problem) for path, problem in reference_problems(document) if path not in paths]
    if experiment is None or found:
        raise UserError(sorted((problem for _, problem in found), key=lambda problem: _place(problem, files)))
    return experiment


def _place(problem: Problem, files: tuple[str, ...]) -> tuple[int, int, int]:
    where = problem.where
    assert where, f"a problem without a place: {problem}"
    return files.index(where.file), where.line or 0, where.column or 0


def _origins(document: Node, experiment: Experiment) -> dict[Key, Location]:
    origins: dict[Key, Location] = {}
    for path, node in document.walk():
        origins[path] = node.value
        if isinstance(node.content, str) and isinstance(_at(experiment, path), Part):
            origins[(*path, "kind")] = node.value
    return origins


def _at(value: object, path: Key) -> object:
    """What stands at PATH of a valid experiment."""
    for key in path:
        value = getattr(value, str(key)) if isinstance(value, Part) else value[key]  # type: ignore[index]
    return value


@dataclass(frozen=True)
class _Shared:
    """What the specs of one workspace share, read and merged once."""

    merged: dict[Path, tuple[Node, dict[str, Node]]] = field(default_factory=dict)
    """A part over what it extends, and the files that were read for it, by name."""
    stacked: dict[tuple[Path, ...], Node] = field(default_factory=dict)
    """Several parts, each over those before it."""
    extended: dict[tuple[Path, str], Path] = field(default_factory=dict)
    """The file that an entry of `extends` means, by the folder in which it is written."""


@dataclass(frozen=True)
class _Reader:
    """Reads the files of one spec, each once."""

    workspace: Path
    shared: _Shared
    documents: dict[str, Node] = field(default_factory=dict)
    """What each file says by itself, by name, in the order of reading."""

    def name(self, file: Path) -> str:
        """The file as messages call it: relative to the workspace when inside."""
        return file.relative_to(self.workspace).as_posix() if file.is_relative_to(self.workspace) else file.as_posix()

    def read(self, file: Path, chain: tuple[Path, ...], asked_at: Location | None = None) -> Node:
        """FILE over what it extends; CHAIN holds the files that extend it, outermost first."""
        if file in chain:
            names = " extends ".join(self.name(item) for item in (*chain[chain.index(file) :], file))
            raise UserError(f"files extend each other in a circle: {names}", asked_at, "take one of these out of its `extends`")
        if file not in self.shared.merged:
            # Only what has no problem is kept: each spec that extends a broken part reads it again and says so.
            self.shared.merged[file] = self._merge(file, chain, asked_at)
        merged, documents = self.shared.merged[file]
        self.documents.update(documents)
        return merged

    def _merge(self, file: Path, chain: tuple[Path, ...], asked_at: Location | None) -> tuple[Node, dict[str, Node]]:
        """FILE over what it extends, and all files that were read for it."""
        name = self.name(file)
        own = self.documents[name] = tree.read(file, name, asked_at)
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
        """Everything that a file extends as one document, if it extends anything."""
        names = tuple(path for path, _ in below)
        if names and names not in self.shared.stacked:
            self.shared.stacked[names] = reduce(tree.override, [node for _, node in below])
        return [self.shared.stacked[names]] if names else []

    def _extended(self, file: Path, entry: Node) -> Path:
        """The file that an entry of `extends` means; raises UserError where there is none, or none inside the workspace."""
        key = file.parent, entry.content
        if key not in self.shared.extended:
            self.shared.extended[key] = self._found(file, entry)
        return self.shared.extended[key]

    def _found(self, file: Path, entry: Node) -> Path:
        given = entry.content
        found = _lexical(file.parent / given)
        if not Path(given).is_absolute() and not found.is_relative_to(self.workspace):
            hint = f"if that is meant, give it as absolute: {found.as_posix()}"
            raise UserError(f"'{given}' leads out of the workspace", entry.value, hint)
        if not found.is_file():
            hint = _neighbour(found) or f"paths in `extends` are relative to {self.name(file)}"
            raise UserError(f"no such file: {self.name(found)}", entry.value, hint)
        return found


def _neighbour(missing: Path) -> str | None:
    """Which file of the same folder may be meant."""
    folder = missing.parent
    return did_you_mean(missing.name, [item.name for item in folder.glob("*.toml")]) if folder.is_dir() else None


def _entries(document: Node) -> tuple[Node, ...]:
    """The entries of `extends`; raises UserError where they are no array of texts."""
    extends = document.content.get("extends")
    if extends is None:
        return ()
    entries: tuple[Node, ...] = extends.content if isinstance(extends.content, tuple) else (extends,)
    wrong = [item for item in entries if not (isinstance(extends.content, tuple) and isinstance(item.content, str))]
    if wrong:
        hint = 'write extends = ["parts/one.toml", "parts/two.toml"]'
        raise UserError(Problem(f"extends must be an array of paths, not {described(item.plain())}", item.value, hint) for item in wrong)
    return entries
