"""Compiles the specs that have changed, and those that refer to them, and takes the rest of the graph as it was.

What a spec adds to the graph follows from its files, from the specs that it looks up while it is compiled, and from what all specs depend
on: code, versions, inputs. A compilation notes the files and the lookups of each spec. Where anything but files of specs has changed, where
a spec has a problem, and where steps of two specs may clash, everything is compiled.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.core import memo
from engine.core.errors import Location, Problem
from engine.core.graph import Graph
from engine.dvc.dvcfile import parameters_text, stage_text, text_md5

if TYPE_CHECKING:
    from engine.compile.compilation import Contribution
    from engine.compile.compiler import Compiled
    from engine.spec.models import Model  # imports pydantic, which a plan from the cache does not need
    from engine.spec.sections import Spec  # imports pydantic, which a plan from the cache does not need

_LARGEST_SHARE = 0.5
"""The share of the specs above which compiling all of them takes hardly longer."""


@dataclass(frozen=True)
class SpecParts:
    """What one spec adds to a compiled workspace."""

    path: str
    stem: str
    targets: tuple[str, ...]
    files: tuple[str, ...]
    steps: tuple[str, ...]
    """The names of its steps in the order of its compilation, also of those that other specs have too."""
    looked_up: tuple[str, ...]
    """The experiments that were looked up while it was compiled."""
    configurations: tuple[str, ...]
    """The configurations of its model and of the adapter on it, as far as they are folders."""
    device_memory: float | None
    """The memory of its device in GB, if stated."""
    warnings: tuple[Problem, ...]
    loggers: Mapping[str, Location]


@dataclass(frozen=True)
class StepParts:
    """What one step adds to the compiled files of a workspace."""

    identity: str
    """md5 of its identity file."""
    resources: str
    """md5 of its resources file."""
    stage: str
    """Its part of `dvc.yaml`."""
    parameters: str
    """Its part of `params.yaml`."""
    packages: tuple[str, ...]
    """The packages whose versions its identity contains."""


@dataclass(frozen=True)
class Parts:
    """What a compiled workspace is put together from."""

    specs: Mapping[str, SpecParts]
    """By experiment, in the order of compilation."""
    steps: Mapping[str, StepParts]
    renamed: bool
    """Whether steps of sweeps were renamed, which depends on all specs."""

    def affected(self, files: Iterable[str]) -> set[str]:
        """The experiments whose specs read one of FILES, and those that look up one of these, in any number of steps."""
        from engine.compile.compilation import EVERY  # imports pydantic, which a plan from the cache does not need

        changed = set(files)
        found = {name for name, spec in self.specs.items() if changed & set(spec.files)}
        while more := {name for name, spec in self.specs.items() if name not in found and {*found, EVERY} & set(spec.looked_up)}:
            found |= more
        return found

    @cached_property
    def owners(self) -> dict[str, str]:
        """For each step, in order, the first experiment that has it: equal steps of others may differ in origin and resources."""
        return _first((name, spec.steps) for name, spec in self.specs.items())

    def others_needed(self, compiled: "Mapping[str, Contribution]") -> set[str]:
        """The experiments that those COMPILED look up, or that come to own a step that one of those has no more."""
        looked_up = {name for added in compiled.values() for name in added.looked_up}
        now = _first((name, compiled[name].steps if name in compiled else spec.steps) for name, spec in self.specs.items())
        heirs = {name for step, name in now.items() if name not in compiled and self.owners[step] != name}
        return (looked_up & self.specs.keys() | heirs) - compiled.keys()

    def is_worth(self, affected: set[str]) -> bool:
        """Whether AFFECTED can be compiled without the other experiments, and that saves time."""
        return bool(affected) and not self.renamed and len(affected) <= _LARGEST_SHARE * len(self.specs)

    def save(self, path: Path, by: Sequence[Any]) -> None:
        """Cache at PATH, with BY: the version of the code, and the state that was compiled."""
        specs = {name: [*list(vars(spec).values())[:-2], *_packed(spec)] for name, spec in self.specs.items()}
        steps = {name: list(vars(step).values()) for name, step in self.steps.items()}
        memo.save(path, {"by": by, "renamed": self.renamed, "specs": specs, "steps": steps})

    @staticmethod
    def load(path: Path, by: Sequence[Any]) -> "Parts | None":
        """The parts that were cached at PATH with BY, if any."""
        found = memo.load(path)
        if not found or found["by"] != by:
            return None
        steps = {
            name: StepParts(identity, resources, stage, parameters, tuple(packages))
            for name, (identity, resources, stage, parameters, packages) in found["steps"].items()
        }
        return Parts({name: _unpacked(*values) for name, values in found["specs"].items()}, steps, found["renamed"])


def _packed(spec: SpecParts) -> list[Any]:
    warnings = [[one.what, place(one.where), one.hint, one.severity] for one in spec.warnings]
    return [warnings, {name: place(where) for name, where in spec.loggers.items()}]


def _unpacked(path: str, stem: str, *values: Any) -> SpecParts:
    targets, files, steps, looked_up, configurations, device_memory, warnings, loggers = values
    lists = (tuple(targets), tuple(files), tuple(steps), tuple(looked_up), tuple(configurations))
    problems = tuple(Problem(what, location(where), hint, severity) for what, where, hint, severity in warnings)
    return SpecParts(path, stem, *lists, device_memory, problems, {name: Location(*where) for name, where in loggers.items()})


def place(where: Location | None) -> list[Any] | None:
    """A location as a JSON value."""
    return [where.file, where.line, where.column, where.source, where.length] if where else None


def location(value: Sequence[Any] | None) -> Location | None:
    """The reverse of `place`."""
    return Location(*value) if value else None


def _first(specs: Iterable[tuple[str, Sequence[str]]]) -> dict[str, str]:
    """For each step, in order, the first of SPECS that has it."""
    found: dict[str, str] = {}
    for experiment, steps in specs:
        for step in steps:
            found.setdefault(step, experiment)
    return found


def _configurations(model: "Model") -> Iterator[str]:
    from engine.spec.models import LocalModel

    if isinstance(model, LocalModel):
        yield f"{model.path}/config.json"
    if isinstance(adapter := getattr(model, "adapter", None), str):
        yield f"{adapter}/adapter_config.json"


def parts_of(specs: "Iterable[Spec]", compiled: "Compiled", identities: Mapping[str, str]) -> Parts:
    """The parts of COMPILED, which are the steps of SPECS with the texts of their identity files."""
    from engine.compile.compiler import targets
    from engine.identity.text import resources_text
    from engine.spec.warnings import advice, loggers

    found, contributions = {}, compiled.contributions
    for spec in specs:
        model = spec.experiment.model
        added = contributions[spec.name] if contributions else None
        found[spec.name] = SpecParts(
            path=spec.path,
            stem=spec.stem,
            targets=targets(spec),
            files=spec.files,
            steps=added.steps if added else (),
            looked_up=tuple(sorted(added.looked_up)) if added else (),
            configurations=tuple(_configurations(model)),
            device_memory=spec.experiment.resources.device_memory,
            warnings=tuple(advice([spec])),
            loggers=loggers([spec]),
        )
    steps = {}
    for step in compiled.steps:
        text = identities[step.name]
        packages = tuple(json.loads(text)["environment"])
        steps[step.name] = StepParts(text_md5(text), text_md5(resources_text(step)), stage_text(step), parameters_text(step), packages)
    return Parts(found, steps, contributions is None)


def merged(before: Parts, graph: Graph, after: Parts, compiled: "Compiled") -> tuple[Parts, Graph] | None:
    """BEFORE and its GRAPH with the specs of AFTER and their COMPILED steps in place of what they were; None if steps may clash."""
    specs = {name: after.specs.get(name, spec) for name, spec in before.specs.items()}
    fresh = {step.name: step for step in compiled.steps}
    kept = {name for experiment, spec in specs.items() if experiment not in after.specs for name in spec.steps}
    if any(before.steps[name].identity != after.steps[name].identity for name in kept & fresh.keys()):
        return None
    owners = _first((experiment, spec.steps) for experiment, spec in specs.items())
    steps = {name: fresh[name] if owner in after.specs else graph[name] for name, owner in owners.items()}
    parts = {name: after.steps[name] if owner in after.specs else before.steps[name] for name, owner in owners.items()}
    return Parts(specs, parts, renamed=False), Graph(steps.values())
