"""Steps and their graph: frozen values in topological order."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from engine.core.errors import Location
    from engine.core.part import Kind, Part  # pydantic, which takes longer to import than a whole plan takes

ARTIFACTS = "artifacts"
METRICS = "metrics"
HEADLINES = f"{METRICS}/experiments"
"""Folder with the headline numbers of each experiment: the only files that DVC takes for metrics."""
PLOTS = "plots"
LIVE = f"{ARTIFACTS}/live"
"""Folder with the live plots of running steps: `dvc plots show artifacts/live`."""


@dataclass(frozen=True)
class Input:
    """What a step reads: a path, relative to the workspace or absolute, and the step that produces it, if any."""

    path: str
    producer: str | None = None
    where: "Location | None" = field(default=None, compare=False)
    """Where a spec names the path, for inputs without a producer."""


@dataclass(frozen=True)
class Step:
    """One node of the DAG: a kind with its parameters and inputs."""

    name: str
    kind: "Kind"
    parameters: "Part"
    inputs: Mapping[str, Input]
    description: str
    origin: "Location"
    """Where the specs define this step."""
    locate: "Callable[[tuple[str | int, ...]], Location | None]" = field(default=lambda path: None, compare=False, repr=False)
    """Maps the path of a parameter to its location in the specs."""
    numerics: str = field(default="portable", compare=False)
    """`resources.numerics` of the spec, which the step's process applies before it computes; the same for every kind."""

    @property
    def kind_name(self) -> str:
        """The name of the step's kind."""
        return self.kind.name

    @property
    def artifact(self) -> str:
        return f"{ARTIFACTS}/{self.name}"

    @property
    def provenance(self) -> str:
        """Path of the provenance statement (what was made from what); identical for all runs with the same result."""
        return f"{ARTIFACTS}/{self.name}.provenance.json"

    @property
    def run_record(self) -> str:
        """Path of the record of the last run (see engine.dvc.run_records); not a DVC output, since it differs between runs."""
        return f"{ARTIFACTS}/{self.name}.run.json"

    @property
    def metrics(self) -> str:
        return metrics_path(self.kind_name, self.name)

    @property
    def plots(self) -> str | None:
        return f"{PLOTS}/{self.name}.csv" if self.kind.plots else None

    @property
    def identity(self) -> str:
        """Path of the identity file (recipe, wiring, code and environment) that the step depends on."""
        return f"{ARTIFACTS}/identity/{self.name}.json"

    @property
    def outputs(self) -> tuple[str, ...]:
        return tuple(path for path in (self.artifact, self.provenance, self.metrics, self.plots) if path)

    @property
    def producers(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(i.producer for i in self.inputs.values() if i.producer))

    def output(self, path: str = "") -> Input:
        """PATH inside the artifact, or the whole artifact, as the input of another step."""
        return Input(f"{self.artifact}/{path}" if path else self.artifact, self.name)

    def measured(self) -> Input:
        """The metrics of the step as the input of another step."""
        return Input(self.metrics, self.name)


def metrics_path(kind: str, step: str) -> str:
    """Path of the metrics of a step: headline numbers are named after their experiment, the facts of any other step after the step."""
    return f"{HEADLINES}/{step.removeprefix('score-')}.json" if kind == "score" else f"{METRICS}/{step}.json"


def measured_by(metrics: str) -> str:
    """The step whose metrics are at a path; the inverse of `metrics_path`."""
    name = metrics.rpartition("/")[2].removesuffix(".json")
    return f"score-{name}" if metrics.startswith(f"{HEADLINES}/") else name


class Graph:
    """Steps in topological order, with access by name; immutable."""

    def __init__(self, steps: Iterable[Step], aliases: Mapping[str, str] | None = None) -> None:
        self.steps: tuple[Step, ...] = tuple(steps)
        self.aliases: Mapping[str, str] = aliases or {}
        """Alternative names of steps: each point of a sweep finds its steps under its own name, even if several points share a step."""
        self._by_name = {step.name: step for step in self.steps}
        seen: set[str] = set()
        for step in self.steps:
            assert set(step.producers) <= seen, f"{step.name} precedes a step that it reads"
            seen.add(step.name)

    def __getitem__(self, name: str) -> Step:
        return self._by_name[self.aliases.get(name, name)]

    def find(self, experiment: str, name: str) -> Step | None:
        """Step NAME of EXPERIMENT, which for a point of a sweep may be a step of that point alone; None if there is none."""
        return self._by_name.get(self.aliases.get(f"{name}@{experiment}", name))

    def __contains__(self, name: str) -> bool:
        return self.aliases.get(name, name) in self._by_name

    def __iter__(self) -> Iterator[Step]:
        return iter(self.steps)

    def __len__(self) -> int:
        return len(self.steps)

    @cached_property
    def consumers(self) -> dict[str, tuple[str, ...]]:
        """For each step, the steps that read its output."""
        found: dict[str, list[str]] = {step.name: [] for step in self.steps}
        for step in self.steps:
            for producer in step.producers:
                found[producer].append(step.name)
        return {name: tuple(names) for name, names in found.items()}

    def needed_for(self, names: Iterable[str]) -> "Graph":
        """The subgraph of the steps NAMES and everything that they depend on."""
        wanted: set[str] = set()
        todo = list(names)
        while todo:
            name = self[todo.pop()].name
            if name not in wanted:
                wanted.add(name)
                todo += self[name].producers
        aliases = {alias: name for alias, name in self.aliases.items() if name in wanted}
        return Graph((step for step in self.steps if step.name in wanted), aliases)
