"""Steps and their graph: frozen values in topological order."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from engine.core.errors import Location

if TYPE_CHECKING:
    from engine.core.part import Kind, Part  # pydantic, which takes longer to import than a whole plan takes

ARTIFACTS = "artifacts"
METRICS = "metrics"
PLOTS = "plots"
LIVE = f"{ARTIFACTS}/live"
"""Where running steps leave what people watch: `dvc plots show artifacts/live`."""


@dataclass(frozen=True)
class Input:
    """What a step reads: a path in the workspace (or an absolute one), and the step that makes it, if one does."""

    path: str
    producer: str | None = None
    where: Location | None = field(default=None, compare=False)
    """Where a spec names the path, for inputs that no step makes."""


@dataclass(frozen=True)
class Step:
    """One node of the DAG: a kind with its parameters and inputs."""

    name: str
    kind: "Kind"
    parameters: "Part"
    inputs: Mapping[str, Input]
    description: str
    origin: Location
    """Where the specs ask for this step."""
    locate: Callable[[tuple[str | int, ...]], Location | None] = field(default=lambda path: None, compare=False, repr=False)
    """Where the specs give a field of the recipe, by the field's path."""
    numerics: str = field(default="portable", compare=False)
    """`resources.numerics` of the spec that asks for it: what its process sets up before it computes, whatever the kind."""

    @property
    def kind_name(self) -> str:
        """The name of its kind."""
        return self.kind.name

    @property
    def artifact(self) -> str:
        return f"{ARTIFACTS}/{self.name}"

    @property
    def provenance(self) -> str:
        """The statement of what it made and of what, which is the same for every run with the same result."""
        return f"{ARTIFACTS}/{self.name}.provenance.json"

    @property
    def run_record(self) -> str:
        """The record of its last run (see engine.dvc.records); no output of DVC, since it differs from run to run."""
        return f"{ARTIFACTS}/{self.name}.run.json"

    @property
    def metrics(self) -> str:
        return f"{METRICS}/{self.name}.json"

    @property
    def plots(self) -> str | None:
        return f"{PLOTS}/{self.name}.csv" if self.kind.plots else None

    @property
    def identity(self) -> str:
        """The small file with recipe, wiring, code and environment that the step depends on."""
        return f"{ARTIFACTS}/identity/{self.name}.json"

    @property
    def outputs(self) -> tuple[str, ...]:
        return tuple(path for path in (self.artifact, self.provenance, self.metrics, self.plots) if path)

    @property
    def producers(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(i.producer for i in self.inputs.values() if i.producer))

    def output(self, path: str = "") -> Input:
        """What another step reads of this one: PATH inside the artifact, or all of it."""
        return Input(f"{self.artifact}/{path}" if path else self.artifact, self.name)


class Graph:
    """Steps in topological order, by name; built once, never changed."""

    def __init__(self, steps: Iterable[Step], aliases: Mapping[str, str] | None = None) -> None:
        self.steps: tuple[Step, ...] = tuple(steps)
        self.aliases: Mapping[str, str] = aliases or {}
        """Other names of steps: a point of a sweep has each sort of step by its own name, also where several points share the step."""
        self._by_name = {step.name: step for step in self.steps}
        seen: set[str] = set()
        for step in self.steps:
            assert set(step.producers) <= seen, f"{step.name} comes before what it reads"
            seen.add(step.name)

    def __getitem__(self, name: str) -> Step:
        return self._by_name[self.aliases.get(name, name)]

    def find(self, experiment: str, name: str) -> Step | None:
        """The step that EXPERIMENT has in the place of NAME (a point of a sweep perhaps one of its own), None where there is none."""
        return self._by_name.get(self.aliases.get(f"{name}@{experiment}", name))

    def __contains__(self, name: str) -> bool:
        return self.aliases.get(name, name) in self._by_name

    def __iter__(self) -> Iterator[Step]:
        return iter(self.steps)

    def __len__(self) -> int:
        return len(self.steps)

    @cached_property
    def consumers(self) -> dict[str, tuple[str, ...]]:
        """For each step the steps that read its output."""
        found: dict[str, list[str]] = {step.name: [] for step in self.steps}
        for step in self.steps:
            for producer in step.producers:
                found[producer].append(step.name)
        return {name: tuple(names) for name, names in found.items()}

    def needed_for(self, names: Iterable[str]) -> "Graph":
        """The part of the graph that must exist for NAMES."""
        wanted: set[str] = set()
        todo = list(names)
        while todo:
            name = self[todo.pop()].name
            if name not in wanted:
                wanted.add(name)
                todo += self[name].producers
        aliases = {alias: name for alias, name in self.aliases.items() if name in wanted}
        return Graph((step for step in self.steps if step.name in wanted), aliases)
