"""What was built: the table of experiments against tasks, and the list of adapters; read from metrics and provenance."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from engine.graph import Graph, Step
from engine.identity import short
from engine.spec.load import Spec
from engine.store import Store
from stages import train


@dataclass(frozen=True)
class Result:
    """One experiment: what it was trained on, its content address, and its scores by task and metric."""

    experiment: str
    tasks: tuple[str, ...]
    method: str
    digest: str | None
    scores: Mapping[str, Mapping[str, float]]


@dataclass(frozen=True)
class Adapter:
    """One trained adapter of the graph."""

    digest: str | None
    experiment: str
    spec: str
    step: str
    in_cache: bool
    metrics: Mapping[str, Any]


def results(specs: Iterable[Spec], graph: Graph, store: Store) -> tuple[Result, ...]:
    """The experiments of SPECS that have been evaluated, models trained in full before adapters, in order of name."""
    found = []
    for spec in specs:
        name = spec.experiment.experiment.name
        scores = store.metrics(graph[f"evaluate-{name}"].metrics)
        if scores:
            digest = _digest(graph[f"train-{name}"], store)
            method = spec.experiment.training.method
            found.append(Result(name, spec.experiment.mixture.tasks, method.kind, digest, scores))
    return tuple(sorted(found, key=lambda result: (result.method != "full", len(result.tasks), result.experiment)))


_COUNTS = ("rows_in", "rows_out", "truncated")


def main_metric(found: Sequence[Result]) -> str:
    """The first metric that the experiments were measured by."""
    names = [name for result in found for scores in result.scores.values() for name, value in scores.items()]
    return next((name for name in names if name not in (*_COUNTS, "left_out")), "exact_match")


def score_table(found: Sequence[Result], metric: str) -> tuple[list[str], list[list[str]]]:
    """Columns and rows: METRIC of every experiment on every task, and the mean rate at which it ends its answers by itself."""
    tasks = list(dict.fromkeys(task for result in found for task in result.scores))
    columns = ["experiment", "trained on", "method", "digest", *tasks, "ends by itself"]
    rows = []
    for result in found:
        ended = [scores["eos_rate"] for scores in result.scores.values() if "eos_rate" in scores]
        cells = [_number(result.scores.get(task, {}).get(metric)) for task in tasks]
        trained_on = ", ".join(result.tasks)
        address = short(result.digest) if result.digest else "–"
        rows.append([result.experiment, trained_on, result.method, address, *cells, _number(sum(ended) / len(ended) if ended else None)])
    return columns, rows


def adapters(specs: Iterable[Spec], graph: Graph, store: Store) -> tuple[Adapter, ...]:
    """The adapter of every spec that trains one, built or not."""
    found = []
    for spec in specs:
        name = spec.experiment.experiment.name
        step = graph[f"train-{name}"]
        if not spec.experiment.training.method.makes_adapter:
            continue
        record = store.record(step.name)
        entry = record.outputs.get(step.artifact) if record else None
        metrics = store.metrics(graph[f"evaluate-{name}"].metrics)
        found.append(Adapter(_digest(step, store), name, spec.path, step.name, bool(entry and store.holds(entry)), metrics))
    return tuple(found)


def adapter_rows(found: Sequence[Adapter], metric: str) -> tuple[list[str], list[list[str]]]:
    """Columns and rows of the list of adapters."""
    rows = []
    for adapter in found:
        scores = ", ".join(f"{task} {_number(values.get(metric))}" for task, values in adapter.metrics.items())
        digest = short(adapter.digest) if adapter.digest else "not built"
        rows.append([digest, adapter.experiment, adapter.spec, adapter.step, "yes" if adapter.in_cache else "no", scores])
    return ["digest", "experiment", "spec", "step", "in cache", metric], rows


def as_data(items: Iterable[Result | Adapter]) -> list[dict[str, Any]]:
    """Plain JSON values, for `--json`."""
    return [asdict(item) for item in items]


def _digest(step: Step, store: Store) -> str | None:
    """Content address of what a training left, from its provenance, where that is the recorded one."""
    assert step.kind is train.KIND
    record = store.record(step.name)
    entry = store.entry(step.provenance)
    if record is None or entry is None or record.outputs.get(step.provenance) != entry:
        return None
    digest = store.metrics(step.provenance).get("digest")
    return digest if isinstance(digest, str) else None


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"
