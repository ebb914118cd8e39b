"""The steps of sweeps get their names: equal ones are one step, and the others are named by the fields that they depend on.

Every point was compiled by itself, each step under a name of its own. Here a step that is the same at all points gets the name that the
spec would give it without a sweep; one that differs gets the labels of those axes behind it on which it depends, and of no other.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

from engine.compile.compilation import Compilation, rewritten
from engine.core.errors import Problem
from engine.core.graph import Input, Step
from engine.identity.text import canonical, recipe_of
from engine.spec.load import Spec
from engine.spec.sweep import Point

Group = tuple[str, str]
"""A sweep's file, and the name of a step as its spec would have it alone."""
Labels = tuple[str, ...]


@dataclass(frozen=True)
class Shared:
    """All steps, producers first; the other names that points know theirs by; what is wrong."""

    steps: tuple[Step, ...]
    aliases: Mapping[str, str]
    problems: list[Problem]


def share(compilation: Compilation) -> Shared:
    """The steps of COMPILATION with equal steps of points as one; where there is no sweep, as they are."""
    if not compilation.told_apart:
        return Shared(tuple(compilation.steps.values()), {}, [])
    sharing = _Sharing(compilation.steps, compilation.told_apart)
    final = Compilation(compilation.specs)
    for step in sharing.all():
        final.put(step)
    return Shared(tuple(final.steps.values()), dict(sharing.aliases()), [*final.problems, *sharing.without_effect(), *sharing.circles])


@dataclass
class _Sharing:
    steps: Mapping[str, Step]
    told_apart: Mapping[str, tuple[str, Spec]]
    found: dict[str, Step] = field(default_factory=dict)
    """Each step under its final name and with final inputs, by the name that it had; producers first."""
    circles: list[Problem] = field(default_factory=list)
    _known: dict[str, list[str]] = field(default_factory=dict)
    """The final names under which sweeps have a content."""
    _open: set[Group] = field(default_factory=set)
    _effects: dict[str, set[int]] = field(default_factory=dict)
    """The axes of each sweep's file on which any step depends."""

    @cached_property
    def groups(self) -> Mapping[Group, Mapping[Labels, str]]:
        """The steps that differ by their point alone, by the point's labels."""
        found: dict[Group, dict[Labels, str]] = {}
        for name, (plain, spec) in self.told_apart.items():
            if spec.point and spec.point.labels:
                found.setdefault((spec.path, plain), {})[spec.point.labels] = name
        return found

    def all(self) -> Iterator[Step]:
        """Every step; those of sweeps first, so that a spec that takes a sweep back finds the steps that equal its own."""
        for group in self.groups:
            self._settle(group)
        for name in self.steps:
            self._final(name)
        return iter(self.found.values())

    def _final(self, name: str) -> Step:
        plain, spec = self.told_apart.get(name, (name, None))
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
        """Name all steps of GROUP."""
        members = self.groups[group]
        if group in self._open:
            spec = self.told_apart[next(iter(members.values()))][1]
            what = f"points of the sweep '{spec.stem}' start from each other, so that their steps cannot be told apart"
            self.circles.append(Problem(what, spec.where("model"), "make the point that others start from a spec of its own"))
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
            # Another spec has the step under its plain name: the point that equals it shares it.
            names[_content(self._final(plain))] = plain
        for labels, step in rewired.items():
            name = names[contents[labels]]
            self._known.setdefault(contents[labels], []).append(name)
            told = [labels[axis] for axis in axes] if name != plain else []
            description = f"{step.description.rstrip('.')} at {', '.join(told)}." if told else step.description
            self.found[self.groups[group][labels]] = replace(step, name=name, description=description)

    def aliases(self) -> Iterator[tuple[str, str]]:
        """Every step by its point and the name that it has alone; the kinds of which an experiment has one, by kind and experiment too."""
        for name, (plain, spec) in self.told_apart.items():
            step = self.found[name]
            yield name, step.name
            if plain == f"{step.kind_name}-{spec.stem}":
                yield f"{step.kind_name}-{spec.name}", step.name

    def without_effect(self) -> Iterator[Problem]:
        """Axes on which no step depends: all their values build the same."""
        points: dict[str, Point] = {spec.path: spec.point for _, spec in self.told_apart.values() if spec.point and spec.point.labels}
        for path, point in points.items():
            for axis, name in enumerate(point.axes):
                if axis not in self._effects.get(path, ()):
                    hint = "sweep what decides a result"
                    yield Problem(f"no step depends on {name}: all its values build the same", point.wheres[axis], hint)


def _content(step: Step) -> str:
    """All that makes a step the same step but its name."""
    inputs = {role: item.path for role, item in step.inputs.items()}
    return canonical([step.kind_name, recipe_of(step.parameters), inputs])


def _axes(contents: Mapping[Labels, str]) -> tuple[int, ...]:
    """The axes along which the content changes while all others stay."""
    count = len(next(iter(contents)))
    found = []
    for axis in range(count):
        seen: dict[Labels, str] = {}
        if any(seen.setdefault((*labels[:axis], *labels[axis + 1 :]), content) != content for labels, content in contents.items()):
            found.append(axis)
    return tuple(found)


def _names(plain: str, contents: Mapping[Labels, str], axes: tuple[int, ...]) -> dict[str, str]:
    """The name of each content: that of the first point that has it."""
    found: dict[str, str] = {}
    for labels, content in contents.items():
        found.setdefault(content, "-".join((plain, *(labels[axis] for axis in axes))))
    if len(set(found.values())) < len(found):
        # Some points lack the step, so that single axes do not tell all of the others apart.
        return _names(plain, contents, tuple(range(len(next(iter(contents))))))
    return found
