"""What is known of a step's size and time before it runs: from its own earlier metrics and from its inputs'; nothing is invented."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from engine.graph import Graph, Step
from engine.plan import Action, Decision, Plan
from engine.store import Store
from stages import evaluate, generate, mix, split, tokenize, train


@dataclass(frozen=True)
class Facts:
    """Sizes in words, in order of interest, and the seconds that the last run took on this machine, if there was one."""

    sizes: tuple[str, ...] = ()
    seconds: float | None = None


def facts_of(step: Step, decision: Decision, graph: Graph, store: Store) -> Facts:
    """What can be said of STEP; a step that will run is described by its inputs, one that is kept by its own metrics."""
    measured = store.metrics(step.provenance).get("measured", {})
    if decision.action in (Action.KEEP, Action.RESTORE):
        return Facts(_sizes(step, store.metrics(step.metrics)), measured.get("seconds"))
    return Facts(_expected(step, graph, store), measured.get("seconds"))


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
        return (f"{sum(part.get('rows', 0) for part in metrics.values() if isinstance(part, dict)):,} answers",)
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
