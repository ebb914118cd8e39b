"""Merges equal steps of sweep points and names the others by the swept fields that they depend on.

Points are compiled separately, with a unique name for each step. Here, a step that is equal at all points gets its name without the
sweep; a step that differs gets, as a suffix, the labels of exactly those axes on which it depends.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING

from engine.compile.compilation import Compilation, rewritten
from engine.core.errors import Problem
from engine.core.graph import Input, Step
from engine.identity.text import canonical, recipe_of
from engine.spec.sweep import Point

if TYPE_CHECKING:
    from engine.spec.sections import Spec

Group = tuple[str, str]
"""A sweep's file, and the name of a step without the sweep."""
Labels = tuple[str, ...]


@dataclass(frozen=True)
class Shared:
    """All steps, producers first; aliases, by which points find their steps; and problems."""

    steps: tuple[Step, ...]
    aliases: Mapping[str, str]
    problems: list[Problem]


def share(compilation: Compilation) -> Shared:
    """The steps of COMPILATION with equal steps of sweep points merged; unchanged without a sweep."""
    if not compilation.per_point:
        return Shared(tuple(compilation.steps.values()), {}, [])
    sharing = _Sharing(compilation.steps, compilation.per_point)
    final = Compilation(compilation.specs)
    for step in sharing.all():
        final.put(step)
    return Shared(tuple(final.steps.values()), dict(sharing.aliases()), [*final.problems, *sharing.without_effect(), *sharing.cycles])


@dataclass
class _Sharing:
    steps: Mapping[str, Step]
    per_point: "Mapping[str, tuple[str, Spec]]"
    found: dict[str, Step] = field(default_factory=dict)
    """Each step with its final name and inputs, by its original name; producers first."""
    cycles: list[Problem] = field(default_factory=list)
    _known: dict[str, list[str]] = field(default_factory=dict)
    """The final names of sweep steps, by content."""
    _open: set[Group] = field(default_factory=set)
    _effects: dict[str, set[int]] = field(default_factory=dict)
    """For each sweep, by file, the axes on which any step depends."""

    @cached_property
    def groups(self) -> Mapping[Group, Mapping[Labels, str]]:
        """The corresponding steps of all points of a sweep, by the point's labels."""
        found: dict[Group, dict[Labels, str]] = {}
        for name, (plain, spec) in self.per_point.items():
            if spec.point and spec.point.labels:
                found.setdefault((spec.path, plain), {})[spec.point.labels] = name
        return found

    def all(self) -> Iterator[Step]:
        """All steps with final names; those of sweeps first, so that a spec with `sweep = false` finds equal steps."""
        for group in self.groups:
            self._settle(group)
        for name in self.steps:
            self._final(name)
        return iter(self.found.values())

    def _final(self, name: str) -> Step:
        plain, spec = self.per_point.get(name, (name, None))
        if name not in self.found and spec and spec.point and spec.point.labels:
            self._settle((spec.path, plain))
        if name not in self.found:
            step = self._rewired(self.steps[name])
            known = self._known.get(_content(step), []) if spec else []
            self.found[name] = replace(step, name=known[0] if known and plain not in known else plain)
        return self.found[name]

    def _rewired(self, step: Step) -> Step:
        return replace(step, inputs={role: self._input(item) for role, item in step.inputs.items()})

    def _input(self, item: Input) -> Input:
        if item.producer is None:
            return item
        return rewritten(item, self.steps[item.producer], self._final(item.producer))

    def _settle(self, group: Group) -> None:
        """Determine the final names of all steps of GROUP."""
        members = self.groups[group]
        if group in self._open:
            spec = self.per_point[next(iter(members.values()))][1]
            what = f"points of the sweep '{spec.stem}' start from each other, so their steps cannot be named"
            self.cycles.append(Problem(what, spec.where("model"), "move the point that others start from to a separate spec"))
            self.found |= {name: self.steps[name] for name in members.values()}
            return
        if next(iter(members.values())) in self.found:
            return
        self._open.add(group)
        rewired = {labels: self._rewired(self.steps[name]) for labels, name in members.items()}
        self._open.discard(group)
        self._name(group, rewired)

    def _name(self, group: Group, rewired: Mapping[Labels, Step]) -> None:
        path, plain = group
        contents = {labels: _content(step) for labels, step in rewired.items()}
        axes = _axes(contents)
        self._effects.setdefault(path, set()).update(axes)
        names = _names(plain, contents, axes)
        if plain in self.steps:
            # Another spec has a step with the plain name; the equal point shares it.
            names[_content(self._final(plain))] = plain
        for labels, step in rewired.items():
            name = names[contents[labels]]
            self._known.setdefault(contents[labels], []).append(name)
            shown = [labels[axis] for axis in axes] if name != plain else []
            description = f"{step.description.rstrip('.')} at {', '.join(shown)}." if shown else step.description
            self.found[self.groups[group][labels]] = replace(step, name=name, description=description)

    def aliases(self) -> Iterator[tuple[str, str]]:
        """Alias and final name of every step of a point; steps named after the experiment also have the alias `<kind>-<point>`."""
        for name, (plain, spec) in self.per_point.items():
            step = self.found[name]
            yield name, step.name
            if plain == f"{step.kind_name}-{spec.stem}":
                yield f"{step.kind_name}-{spec.name}", step.name

    def without_effect(self) -> Iterator[Problem]:
        """A problem for each axis on which no step depends: all its values give the same result."""
        points: dict[str, Point] = {spec.path: spec.point for _, spec in self.per_point.values() if spec.point and spec.point.labels}
        for path, point in points.items():
            for axis, name in enumerate(point.axes):
                if axis not in self._effects.get(path, ()):
                    hint = "remove it from the sweep, and sweep fields that affect the result"
                    yield Problem(f"no step depends on {name}: all its values give the same result", point.wheres[axis], hint)


def _content(step: Step) -> str:
    """A key that is equal for equal steps, whatever their names: kind, recipe and inputs."""
    inputs = {role: item.path for role, item in step.inputs.items()}
    return canonical([step.kind_name, recipe_of(step.parameters), inputs])


def _axes(contents: Mapping[Labels, str]) -> tuple[int, ...]:
    """The axes along which the content varies with all other labels fixed."""
    count = len(next(iter(contents)))
    found = []
    for axis in range(count):
        seen: dict[Labels, str] = {}
        if any(seen.setdefault((*labels[:axis], *labels[axis + 1 :]), content) != content for labels, content in contents.items()):
            found.append(axis)
    return tuple(found)


def _names(plain: str, contents: Mapping[Labels, str], axes: tuple[int, ...]) -> dict[str, str]:
    """The name of each content, from the first point that has it."""
    found: dict[str, str] = {}
    for labels, content in contents.items():
        found.setdefault(content, "-".join((plain, *(labels[axis] for axis in axes))))
    if len(set(found.values())) < len(found):
        # Some points lack the step, so these axes alone do not distinguish all contents.
        return _names(plain, contents, tuple(range(len(next(iter(contents))))))
    return found
