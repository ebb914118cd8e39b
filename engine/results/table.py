"""What was built: the table of experiments against tasks, read from metrics and provenance."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from engine.core.errors import UserError, did_you_mean
from engine.core.graph import Graph, Step
from engine.dvc.store import Store
from engine.identity.provenance import from_statement
from engine.identity.text import short
from engine.plan.decide import Action, Plan
from engine.spec.load import Spec
from stages import train


@dataclass(frozen=True)
class Result:
    """One experiment: what it was trained on, its content address, and its scores by task and metric."""

    experiment: str
    tasks: tuple[str, ...]
    method: str
    digest: str | None
    scores: Mapping[str, Mapping[str, float]]
    intervals: Mapping[str, Mapping[str, Mapping[str, float]]]
    """Value, low and high, by task and metric; empty where the evaluation's artifact is not here."""
    comparisons: tuple[Mapping[str, Any], ...]
    """How each value differs from another model's on the same rows, and whether the difference is real."""
    current: bool
    """Whether the scores are those of the specs, code and data as they are now."""
    split: str = "test"
    """Of which rows the scores are."""
    benchmarks: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """The values of published benchmarks by task and metric; empty where none was taken."""
    benchmarks_current: bool = True
    """Whether these are those of the specs, code and data as they are now."""


def results(specs: Iterable[Spec], graph: Graph, store: Store, plan: Plan) -> tuple[Result, ...]:
    """The experiments of SPECS that have been evaluated, models trained in full before adapters, in order of name."""
    found = []
    for spec in specs:
        name = spec.name
        evaluation = graph[f"evaluate-{name}"]
        scores = scores_of(evaluation, store)
        if scores:
            digest = digest_of(graph[f"train-{name}"], store)
            method = spec.experiment.training.method
            current = plan[evaluation.name].action is Action.KEEP
            folder = evaluation.artifact
            intervals = store.metrics(f"{folder}/scores.json").get("models", {}).get(spec.stem, {})
            compared = tuple(store.metrics(f"{folder}/comparisons.json").get("comparisons", ()))
            split = spec.experiment.evaluation.split
            taken = graph[f"benchmark-{name}"] if spec.experiment.benchmarks else None
            values = scores_of(taken, store) if taken else {}
            fresh = taken is None or plan[taken.name].action is Action.KEEP
            tasks = spec.experiment.mixture.tasks
            found.append(Result(name, tasks, method.kind, digest, scores, intervals, compared, current, split, values, fresh))
    return tuple(sorted(found, key=lambda result: (result.method != "full", len(result.tasks), result.experiment)))


def chosen_metric(found: Sequence[Result], wanted: str | None) -> str:
    """The metric that the user wants, or the first that was measured; raises UserError for one that was not."""
    return measured_metric([result.scores for result in found], wanted)


def measured_metric(tables: Iterable[Mapping[str, Mapping[str, Any]]], wanted: str | None) -> str:
    """The same of TABLES with values by task and metric."""
    names = dict.fromkeys(
        name for table in tables for scores in table.values() for name, value in scores.items() if isinstance(value, float)
    )
    if wanted and wanted not in names:
        raise UserError(f"no experiment was measured by '{wanted}'", hint=did_you_mean(wanted, names))
    return wanted or next(iter(names), "exact_match")


def scores_of(step: Step, store: Store) -> dict[str, Any]:
    """The metrics of an evaluation, by task."""
    return {task: values for task, values in store.metrics(step.metrics).items() if isinstance(values, dict)}


def score_table(found: Sequence[Result], metric: str, intervals: bool = False) -> tuple[list[str], list[list[str]]]:
    """Columns and rows: METRIC of every experiment on every task, and the mean rate at which it ends its answers by itself.

    Where some are asked validation rows, a column says of which rows each is: values of different rows are not to be compared.
    """
    tasks = list(dict.fromkeys(task for result in found for task, scores in result.scores.items() if metric in scores))
    told = any(result.split != "test" for result in found)
    state = ["state"] if _any_stale(found) else []
    columns = ["experiment", "trained on", "method", "digest", *(["rows"] if told else []), *tasks, "ends by itself", *state]
    rows = []
    for result in found:
        ended = [scores["eos_rate"] for scores in result.scores.values() if "eos_rate" in scores]
        cells = [_score(result, task, metric, intervals) for task in tasks]
        trained_on = ", ".join(result.tasks)
        address = short(result.digest) if result.digest else "–"
        state = ["current" if result.current else "stale"] if _any_stale(found) else []
        mean = number(sum(ended) / len(ended) if ended else None)
        asked = [result.split] if told else []
        rows.append([result.experiment, trained_on, result.method, address, *asked, *cells, mean, *state])
    return columns, rows


def _score(result: Result, task: str, metric: str, with_interval: bool) -> str:
    value = number(result.scores.get(task, {}).get(metric))
    around = result.intervals.get(task, {}).get(metric)
    return f"{value} [{number(around['low'])}, {number(around['high'])}]" if with_interval and around else value


def unseen(found: Iterable[Result]) -> list[str]:
    """A line for each metric that cannot see the text of some rows of some experiment: its values say nothing of these."""
    lines = []
    for result in found:
        for task, scores in result.scores.items():
            unseen_rows: Any = scores.get("unseen_rows", {})
            for metric, count in unseen_rows.items():
                what = f"{result.experiment}: {count} of {scores['rows']} rows of {task} hold text that {metric} cannot see"
                lines.append(f"{what}; its setting in evaluation.metrics: {'tokenize' if metric == 'bleu' else 'segmentation'}")
    return lines


BENCHMARK_COLUMNS = ("experiment", "benchmark", "metric", "value", "questions", "state")


def benchmark_table(found: Iterable[Result]) -> list[list[str]]:
    """A row for each value of each published benchmark that an experiment has taken; values to four digits, as leaderboards show them."""
    rows = []
    for result in found:
        state = "current" if result.benchmarks_current else "stale"
        for task, values in result.benchmarks.items():
            asked = str(values["rows"]) if "rows" in values else "–"
            shown = [(metric, value) for metric, value in values.items() if isinstance(value, float)]
            rows += [[result.experiment, task, metric, f"{value:.4f}", asked, state] for metric, value in shown]
    return rows


COMPARISON_COLUMNS = ("experiment", "task", "trained on it", "other", "its value", "the other's", "difference", "interval", "p", "real")


def comparison_table(found: Sequence[Result], metric: str) -> list[list[str]]:
    """METRIC of every experiment against every model that it is compared with, and which differences are real."""
    rows = []
    for result in found:
        for one in result.comparisons:
            if one["metric"] == metric:
                interval = f"[{one['low']:+.2f}, {one['high']:+.2f}]"
                values = [number(one["value"]), number(one["other_value"]), f"{one['difference']:+.2f}", interval, _p(one["p_corrected"])]
                trained_on, real = ("yes" if one[key] else "no" for key in ("trained_on", "real"))
                rows.append([result.experiment, one["task"], trained_on, one["other"], *values, real])
    return rows


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _any_stale(found: Sequence[Result]) -> bool:
    return not all(result.current for result in found)


def as_data(items: Iterable[Result]) -> list[dict[str, Any]]:
    """Plain JSON values, for `--json`."""
    return [asdict(item) for item in items]


def digest_of(step: Step, store: Store) -> str | None:
    """Content address of what a training left, from its provenance, where that is the recorded one."""
    assert step.kind is train.KIND
    record = store.record(step.name)
    entry = store.entry(step.provenance)
    if record is None or entry is None or record.outputs.get(step.provenance) != entry:
        return None
    found = from_statement(store.metrics(step.provenance))
    return found.digest if found else None


def number(value: float | None) -> str:
    """A score as tables show it."""
    return "–" if value is None else f"{value:.2f}"
