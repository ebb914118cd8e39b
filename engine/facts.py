"""What is known of a step's size, cost and time before it runs: from records and from configurations; nothing is invented."""

import os
import platform
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from engine.estimate.steps import estimate_of
from engine.estimate.training import Estimate, gigabytes, shortage, too_large
from engine.graph import Graph, Step
from engine.plan import Action, Plan
from engine.provenance import Provenance, from_statement
from engine.spec.load import Spec
from engine.store import Store
from stages import evaluate, generate, mix, split, tokenize, train


@dataclass(frozen=True)
class Facts:
    """Sizes in words, in order of interest, the seconds that the last run took on this machine, and what a training takes."""

    sizes: tuple[str, ...] = ()
    seconds: float | None = None
    parameters: int | None = None
    trainable_parameters: int | None = None
    estimate: Estimate | None = None

    def as_data(self) -> dict[str, Any]:
        """Plain JSON values, for `--json`; sizes in bytes."""
        return {
            "sizes": list(self.sizes),
            "seconds": self.seconds,
            "parameters": self.parameters,
            "trainable_parameters": self.trainable_parameters,
            "memory": self.estimate.as_data() if self.estimate else None,
            "disk": self.estimate.disk if self.estimate else None,
        }


def facts_of(step: Step, plan: Plan, graph: Graph, store: Store) -> Facts:
    """What can be said of STEP; a step that will run is described by its inputs, one that is kept by its own metrics."""
    seconds = _seconds(from_statement(store.metrics(step.provenance)))
    estimate = estimate_of(step, graph, plan, store) if step.kind is train.KIND else None
    if plan[step.name].action in (Action.KEEP, Action.RESTORE):
        metrics = store.metrics(step.metrics)
        return Facts(_sizes(step, metrics), seconds, metrics.get("parameters"), metrics.get("trainable_parameters"), estimate)
    sizes = _expected(step, graph, store)
    if estimate is None:
        return Facts(sizes, seconds)
    return Facts((*sizes, *_cost(estimate)), seconds, estimate.parameters, estimate.trainable, estimate)


def _seconds(provenance: Provenance | None) -> float | None:
    """How long the recorded run took, if it was on this machine: another one's times say nothing."""
    if provenance is None:
        return None
    machine = provenance.machine
    here = machine.get("platform") == platform.platform() and machine.get("cores") == os.cpu_count()
    return provenance.measured.get("seconds") if here else None


def _cost(estimate: Estimate) -> tuple[str, ...]:
    """Parameters and memory in words; `at most` where the vocabulary, and `at max_length` where the longest row is not known yet."""
    matter = estimate.matter
    total = f"{'' if matter.exact_model else 'at most '}{_rounded(estimate.parameters)}"
    memory = f"~{gigabytes(estimate.memory.total)}{'' if matter.measured_length else ' at max_length'}"
    return f"{_rounded(estimate.trainable)} trainable of {total}", memory


def device_limits(specs: Iterable[Spec]) -> dict[str, float]:
    """The memory of one device in GB that specs state, by the name of the training step."""
    stated = {spec.experiment.experiment.name: spec.experiment.resources.device_memory for spec in specs}
    return {f"{train.KIND.name}-{name}": limit for name, limit in stated.items() if limit is not None}


def shortages(plan: Plan, facts: Mapping[str, Facts], limits: Mapping[str, float]) -> list[str]:
    """One message for each training that may run now and cannot fit the device that its spec states."""
    return [
        shortage(name, estimate, limits[name])
        for name in _limited(plan, limits)
        if (estimate := facts[name].estimate) and too_large(estimate, limits[name])
    ]


def unchecked(plan: Plan, facts: Mapping[str, Facts], limits: Mapping[str, float]) -> list[str]:
    """The trainings that may run now and whose memory cannot be said before what they start from is here."""
    return [name for name in _limited(plan, limits) if facts[name].estimate is None]


def _limited(plan: Plan, limits: Mapping[str, float]) -> list[str]:
    return [d.name for d in plan.decisions if d.name in limits and d.action in (Action.RUN, Action.MAYBE)]


def _sizes(step: Step, metrics: Mapping[str, Any]) -> tuple[str, ...]:
    if not metrics:
        return ()
    if step.kind in (generate.KIND, mix.KIND):
        return _counted(metrics, "rows_out", "rows")
    if step.kind is split.KIND:
        return tuple(f"{metrics[name]:,} {name}" for name in ("train", "validation", "test") if isinstance(metrics.get(name), int))
    if step.kind is tokenize.KIND:
        tokens = sum(part.get("tokens", 0) for part in metrics.values() if isinstance(part, dict))
        return (f"{tokens:,} tokens",)
    if step.kind is train.KIND:
        return (*_counted(metrics, "steps", "steps"), *_trainable(metrics))
    if step.kind is evaluate.KIND:
        return (f"{sum(part.get('rows_out', 0) for part in metrics.values() if isinstance(part, dict)):,} answers",)
    return _counted(metrics, "parameters", "parameters")


def _counted(metrics: Mapping[str, Any], *words: str) -> tuple[str, ...]:
    *keys, unit = words
    return next(((f"{metrics[key]:,} {unit}",) for key in (*keys, unit) if isinstance(metrics.get(key), int)), ())


def _trainable(metrics: Mapping[str, Any]) -> tuple[str, ...]:
    trainable, total = metrics.get("trainable_parameters"), metrics.get("parameters")
    return (f"{_rounded(trainable)} trainable of {_rounded(total)}",) if trainable and total else ()


def _rounded(count: float) -> str:
    """Three digits and a unit: 98304 is `98.3 k`."""
    for factor, unit in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if count >= factor:
            return f"{count / factor:.3g}{unit}"
    return f"{count:g}"


def _expected(step: Step, graph: Graph, store: Store) -> tuple[str, ...]:
    """The optimizer steps of a training whose mixture's length is known; other kinds say nothing before they ran."""
    if step.kind is not train.KIND:
        return ()
    order = graph[str(step.inputs["order"].producer)]
    parameters = order.parameters
    assert isinstance(parameters, mix.Parameters) and isinstance(step.parameters, train.Parameters)
    rows = parameters.rows or store.metrics(order.metrics).get("rows")
    batch = step.parameters.global_batch.rows
    return (f"{-(-rows // batch):,} steps of {batch} rows",) if isinstance(rows, int) else ()


def expected_seconds(plan: Plan, facts: Mapping[str, Facts]) -> tuple[float, int]:
    """The seconds that earlier runs give for what may run now, and the number of steps that have no earlier run."""
    todo = [facts[d.name] for d in plan.decisions if d.action in (Action.RUN, Action.MAYBE) and d.name in facts]
    return sum(fact.seconds or 0.0 for fact in todo), sum(fact.seconds is None for fact in todo)
