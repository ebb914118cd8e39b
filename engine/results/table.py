"""The results of evaluations: tables of experiments against tasks, from metrics and provenance."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from math import floor, log10
from typing import TYPE_CHECKING, Any

from engine.core.errors import UserError, did_you_mean
from engine.core.graph import Graph, Step
from engine.core.names import BASE
from engine.dvc.store import Store
from engine.identity.provenance import from_statement
from engine.identity.text import short
from engine.plan.decide import Action, Plan
from engine.results.lengths import Learned, Warned, run_away
from engine.results.ranking import LOWER_IS_BETTER, Standing, number, standings, tasks_with
from engine.results.significance import p_name, p_text
from stages.train.objectives.base import PairObjective
from stages.train.objectives.supervised import Supervised

if TYPE_CHECKING:
    from engine.spec.sections import Spec


@dataclass(frozen=True)
class Result:
    """One experiment: its tasks, its content address, and its metrics by task."""

    experiment: str
    tasks: tuple[str, ...]
    method: str
    digest: str | None
    scores: Mapping[str, Mapping[str, float]]
    intervals: Mapping[str, Mapping[str, Mapping[str, float]]]
    """Value, low and high, by task and metric; empty if the evaluation's artifact is missing."""
    comparisons: tuple[Mapping[str, Any], ...]
    """How each value differs from another model's on the same rows, and whether the difference is significant."""
    current: bool
    """Whether the scores are up to date with specs, code and data."""
    split: str = "test"
    """The split that was evaluated."""
    statistics: Mapping[str, Any] = field(default_factory=dict)
    """How differences are tested: `confidence`, `correction`, and further settings; empty without comparisons."""
    benchmarks: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """The values of published benchmarks by task and metric; empty if none was run."""
    benchmarks_current: bool = True
    """Whether the benchmark values are up to date with specs, code and data."""
    objective: str = "supervised"
    """What the training minimised."""
    held_out: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """What the objective measured of validation rows, by task, such as `accuracy` of pairs; empty for supervised training. With a reference
    model also `chosen_log_ratio` and `rejected_log_ratio`: how much likelier than under it the answers are, in nats."""
    warnings: tuple[Warned, ...] = ()
    """What is probably wrong with its answers: lengths that ran away while it learned from preferences."""


def results(specs: "Iterable[Spec]", graph: Graph, store: Store, plan: Plan) -> tuple[Result, ...]:
    """The evaluated experiments of SPECS, sorted: full trainings first, then by number of tasks and name."""
    found = []
    for spec in specs:
        name = spec.name
        evaluation = graph[f"evaluate-{name}"]
        scores = scores_of(evaluation, store)
        if scores:
            experiment = spec.experiment
            digest = digest_of(graph[f"train-{name}"], store) if experiment.training else None
            current = plan[evaluation.name].action is Action.KEEP
            folder = evaluation.artifact
            intervals = store.metrics(f"{folder}/scores.json").get("models", {}).get(spec.stem, {})
            comparisons = store.metrics(f"{folder}/comparisons.json")
            compared, tested = tuple(comparisons.get("comparisons", ())), comparisons.get("method", {})
            split = experiment.evaluation.split
            taken = graph[f"benchmark-{name}"] if experiment.benchmarks else None
            values = scores_of(taken, store) if taken else {}
            fresh = taken is None or plan[taken.name].action is Action.KEEP
            trained = experiment.trained_tasks, method_name(spec)
            objective = experiment.training.objective if experiment.training else Supervised()
            learned = _learned(graph[f"train-{name}"], store, objective) if experiment.training else {}
            kind, warned = objective.kind, _warned(spec, learned, compared)
            found.append(
                Result(name, *trained, digest, scores, intervals, compared, current, split, tested, values, fresh, kind, learned, warned)
            )
    return tuple(sorted(found, key=lambda result: (result.method != "full", len(result.tasks), result.experiment)))


def _learned(step: Step, store: Store, objective: Any) -> Mapping[str, Mapping[str, float]]:
    """What the OBJECTIVE of a training measured of validation rows, by task; with a reference also the log-ratios to it."""
    measured = store.metrics(step.metrics).get("validation")
    found = {task: values for task, values in measured.items() if isinstance(values, dict)} if isinstance(measured, dict) else {}
    if not objective.needs_reference:
        return found
    # Rewards are log-ratios times beta, which makes them incomparable.
    sides = ("chosen", "rejected")
    return {
        task: {**values, **{f"{side}_log_ratio": values[f"{side}_reward"] / objective.beta for side in sides if f"{side}_reward" in values}}
        for task, values in found.items()
    }


def _warned(spec: "Spec", measured: Mapping[str, Mapping[str, float]], compared: Sequence[Mapping[str, Any]]) -> tuple[Warned, ...]:
    """What is wrong with the answers of SPEC's model, by MEASURED of validation rows; only preferences let lengths run away."""
    training = spec.experiment.training
    if training is None or not isinstance(training.objective, PairObjective):
        return ()
    start = [name for name in (BASE, getattr(spec.experiment.model, "experiment", None)) if name]
    return run_away(Learned(spec.name, start, measured, training.objective.remedy), compared)


def method_name(spec: "Spec") -> str:
    """The training method of SPEC as tables show it: `adopted` for an adapter that was trained elsewhere, `none` for a model alone."""
    if spec.experiment.method:
        return spec.experiment.method.kind
    return "adopted" if getattr(spec.experiment.model, "adapter", None) else "none"


def chosen_metric(found: Sequence[Result], wanted: str | None) -> str:
    """The metric WANTED, or the first measured one if it is None; raises UserError if WANTED was not measured."""
    if wanted and any(one["metric"] == wanted for result in found for one in result.comparisons):
        return wanted
    return measured_metric([result.scores for result in found], wanted)


def measured_metric(tables: Iterable[Mapping[str, Mapping[str, Any]]], wanted: str | None) -> str:
    """As `chosen_metric`, for TABLES with values by task and metric."""
    names = dict.fromkeys(
        name for table in tables for scores in table.values() for name, value in scores.items() if isinstance(value, float)
    )
    if wanted and wanted not in names:
        own = [name for name in names if name.startswith(wanted)]
        hint = f"its values: {', '.join(own)}" if len(own) > 1 else did_you_mean(wanted, names)
        raise UserError(f"no experiment has the metric '{wanted}'", hint=hint)
    return wanted or next(iter(names), "exact_match")


def scores_of(step: Step, store: Store) -> dict[str, Any]:
    """The metrics of an evaluation, by task."""
    return {task: values for task, values in store.metrics(step.metrics).items() if isinstance(values, dict)}


def score_table(
    found: Sequence[Result], metric: str, intervals: bool = False, sort: str | None = None
) -> tuple[list[str], list[list[str]]]:
    """Columns and rows: METRIC of every experiment on every task, and `stops`: the share of answers that end with an end token.

    Values are marked with their standing. If any experiment is evaluated on validation rows, a column names the split: values of
    different splits are not comparable. SORT orders rows by a task, the best value first, or by `experiment` or `method`; raises
    UserError for any other name.
    """
    tasks = tasks_with(found, metric)
    ranks = {task: standings(found, metric, task) for task in tasks}
    mixed = any(result.split != "test" for result in found)
    state = ["state"] if _any_stale(found) else []
    columns = ["experiment", "trained on", "method", "digest", *(["split"] if mixed else []), *tasks, "stops", *state]
    rows = []
    for result in _sorted(found, metric, tasks, sort):
        ended = [scores["eos_rate"] for scores in result.scores.values() if "eos_rate" in scores]
        cells = [_score(result, task, metric, intervals, ranks[task]) for task in tasks]
        trained_on = ", ".join(result.tasks) or "–"
        address = short(result.digest) if result.digest else "–"
        state = ["current" if result.current else "stale"] if _any_stale(found) else []
        mean = number(sum(ended) / len(ended) if ended else None)
        split = [result.split] if mixed else []
        rows.append([result.experiment, trained_on, result.method, address, *split, *cells, mean, *state])
    return columns, rows


def _sorted(found: Sequence[Result], metric: str, tasks: Sequence[str], by: str | None) -> Sequence[Result]:
    if by is None:
        return found
    if by in ("experiment", "method"):
        return sorted(found, key=lambda result: getattr(result, by))
    if by not in tasks:
        known = ("experiment", "method", *tasks)
        raise UserError(
            f"the table of {metric} has no column '{by}' to sort by", hint=did_you_mean(by, known) or f"known: {', '.join(known)}"
        )
    sign = 1 if metric in LOWER_IS_BETTER else -1
    return sorted(found, key=lambda result: sign * result.scores.get(by, {}).get(metric, -sign * float("inf")))


def _score(result: Result, task: str, metric: str, with_interval: bool, ranks: Mapping[str, Standing]) -> str:
    value = number(result.scores.get(task, {}).get(metric))
    around = result.intervals.get(task, {}).get(metric)
    shown = f"{value} [{number(around['low'])}, {number(around['high'])}]" if with_interval and around else value
    return f"{shown} {ranks[result.experiment].value}" if result.experiment in ranks else shown


def value_rows(found: Iterable[Result], metric: str | None) -> tuple[list[str], list[list[str]]]:
    """Columns and rows of every value, or of those of METRIC, with its interval: one value per row, unrounded, for programs."""
    columns = ["experiment", "trained_on", "method", "digest", "task", "split", "metric", "value", "low", "high", "rows", "current"]
    rows = []
    for result in found:
        for task, scores in result.scores.items():
            for name, value in scores.items():
                if isinstance(value, float) and metric in (None, name):
                    around = result.intervals.get(task, {}).get(name, {})
                    ends = [str(around.get(end, "")) for end in ("low", "high")]
                    whose = [result.experiment, " ".join(result.tasks), result.method, result.digest or ""]
                    count, current = str(scores.get("rows", "")), str(result.current).lower()
                    rows.append([*whose, task, result.split, name, str(value), *ends, count, current])
    return columns, rows


def comparison_rows(found: Iterable[Result], metric: str) -> tuple[list[str], list[list[str]]]:
    """Columns and rows of METRIC, a value of two models such as the win rate: one comparison per row, unrounded, for programs."""
    own = ["experiment", "trained_on", "method", "digest", "task", "split", "metric", "compared_with", "value", "other_value"]
    numbers = ["difference", "low", "high", "p", "p_corrected", "rows"]
    rows = []
    for result in found:
        for one in result.comparisons:
            if one["metric"] == metric:
                whose = [result.experiment, " ".join(result.tasks), result.method, result.digest or ""]
                values = [str(one[key]) for key in ("value", "other_value", *numbers)]
                states = [str(one["real"]).lower(), str(result.current).lower()]
                rows.append([*whose, one["task"], result.split, metric, one["other"], *values, *states])
    return [*own, *numbers, "significant", "current"], rows


def ignored_text(found: Iterable[Result]) -> list[str]:
    """One line for each metric that ignores the text of some rows of an experiment: its values do not cover these rows."""
    lines = []
    for result in found:
        for task, scores in result.scores.items():
            unseen_rows: Any = scores.get("unseen_rows", {})
            for metric, count in unseen_rows.items():
                what = f"{result.experiment}: {metric} ignores the text of {count} of {scores['rows']} rows of {task}"
                lines.append(f"{what}; set {'tokenize' if metric == 'bleu' else 'segmentation'} of {metric} in evaluation.metrics")
    return lines


BENCHMARK_COLUMNS = ("experiment", "benchmark", "metric", "value", "questions", "state")


def benchmark_table(found: Iterable[Result]) -> list[list[str]]:
    """One row per value of each published benchmark that an experiment has run; four digits, as leaderboards show them."""
    rows = []
    for result in found:
        state = "current" if result.benchmarks_current else "stale"
        for task, values in result.benchmarks.items():
            questions = str(values["rows"]) if "rows" in values else "–"
            shown = [(metric, value) for metric, value in values.items() if isinstance(value, float)]
            rows += [[result.experiment, task, metric, f"{value:.4f}", questions, state] for metric, value in shown]
    return rows


def comparison_table(found: Sequence[Result], metric: str) -> tuple[list[str], list[list[str]], str]:
    """Columns, rows and legend: METRIC of every experiment against every model that it is compared with, and what is significant."""
    confidences = {float(result.statistics["confidence"]) for result in found if "confidence" in result.statistics}
    corrected = p_name(str(result.statistics.get("correction", "")) for result in found if result.comparisons)
    columns = ["experiment", "task", "trained on it", "compared with", "value", "baseline", "difference", "interval", "p", corrected]
    rows = []
    for result in found:
        for one in result.comparisons:
            if one["metric"] == metric:
                difference, low, high = (f"{one[key]:+.{_digits(one)}f}" for key in ("difference", "low", "high"))
                values = [number(one["value"]), number(one["other_value"]), difference, f"[{low}, {high}]"]
                trained_on, significant = ("yes" if one[key] else "no" for key in ("trained_on", "real"))
                chances = [p_text(one["p"]), p_text(one["p_corrected"])]
                rows.append([result.experiment, one["task"], trained_on, one["other"], *values, *chances, significant])
    level = f"{1 - confidences.pop():.2g}" if len(confidences) == 1 else "1 - confidence"
    legend = (
        f"interval and p: of this difference alone; {corrected}: corrected for all comparisons of an experiment by this metric; "
        f"significant: {corrected} < {level}"
    )
    return [*columns, "significant"], rows, legend


def _digits(compared: Mapping[str, Any]) -> int:
    """Decimals of a difference: two, and more if its interval is narrow."""
    width = compared["high"] - compared["low"]
    return min(6, max(2, 1 - floor(log10(width)))) if width > 0 else 2


def _any_stale(found: Sequence[Result]) -> bool:
    return not all(result.current for result in found)


def as_data(items: Iterable[Result]) -> list[dict[str, Any]]:
    """Plain JSON values, for `--json`."""
    return [asdict(item) for item in items]


def digest_of(step: Step, store: Store) -> str | None:
    """Content address of a training's artifact, from its provenance; None unless that is the recorded file."""
    assert step.kind_name == "train"
    record = store.record(step.name)
    entry = store.entry(step.provenance)
    if record is None or entry is None or record.outputs.get(step.provenance) != entry:
        return None
    found = from_statement(store.metrics(step.provenance))
    return found.digest if found else None
