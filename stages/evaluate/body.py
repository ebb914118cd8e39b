"""Body of evaluate: metrics with intervals on a model's predictions, and paired tests against other models."""

import csv
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from engine.core.errors import Location, UserError
from stages.evaluate import Parameters
from stages.evaluate.judgements import with_judgements
from stages.evaluate.metrics.judge_scores import JudgeScores
from stages.evaluate.metrics.statistic import mean_of
from stages.evaluate.pairing import Pair
from stages.evaluate.scores import PAIRED_BOOTSTRAP, Difference, Measured, Score, measure
from stages.evaluate.verdicts import WIN_RATE, wins
from stages.process.job import Job, Metrics
from stages.rows.prediction import Prediction
from stages.rows.predictions import read_predictions
from stages.statistics.proportions import PAIRED
from stages.statistics.resampling import CORRECTIONS

DIGITS = 6
"""Decimal digits of metrics: rounding keeps noise out of `dvc metrics diff`."""

BASE = "base"
"""Name of the model that an adapter was trained on, in comparisons."""

COLUMNS = ("score", "model", "task", "metric", "value", "low", "high", "rows")


@dataclass(frozen=True)
class Compared:
    """One value of two models on one task, compared."""

    task: str
    metric: str
    other: str
    difference: Difference


def run(parameters: Parameters, job: Job) -> Metrics:
    """Write `scores.json`, `comparisons.json` and the plot of all values; raises UserError for predictions on different rows."""
    tasks = (*parameters.tasks, *parameters.held_out)
    found = {task: _open(parameters, job, f"predictions/{task}", task) for task in tasks}
    measured = {task: measure(rows, parameters.metrics, job.inputs[f"predictions/{task}"]) for task, rows in found.items()}
    scores = {parameters.model: {task: one.scores(parameters.statistics) for task, one in measured.items()}}
    compared: list[Compared] = []
    outcomes: dict[str, dict[str, dict[str, Any]]] = {}
    for name in parameters.compare:
        others = {task: _open(parameters, job, f"compare/{name}/{task}", task) for task in tasks}
        theirs = {task: measure(rows, parameters.metrics, job.inputs[f"compare/{name}/{task}"]) for task, rows in others.items()}
        scores[name] = {task: one.scores(parameters.statistics) for task, one in theirs.items()}
        for task in tasks:
            pair = Pair(found[task], others[task], job.inputs[f"predictions/{task}"], job.inputs[f"compare/{name}/{task}"])
            differences = _differences(parameters, pair, measured[task], theirs[task])
            if verdicts := job.inputs.get(f"versus/{name}/{task}"):
                difference, counts = _win_rate(parameters, verdicts, pair)
                differences |= {WIN_RATE: difference} if difference else {}
                outcomes.setdefault(task, {})[name] = counts
            compared += [Compared(task, metric, name, difference) for metric, difference in differences.items()]
    _write(parameters, job, scores, compared, measured)
    found_metrics = {task: _metrics(task, values, measured[task], compared) for task, values in scores[parameters.model].items()}
    return {task: values | ({"versus": outcomes[task]} if task in outcomes else {}) for task, values in found_metrics.items()}


def _open(parameters: Parameters, job: Job, role: str, task: str) -> list[Prediction]:
    """The predictions of ROLE for TASK, with the judge's scores if there is a judge."""
    path = job.inputs[role]
    predictions = read_predictions(path, task)
    if not predictions:
        hint = f"increase tasks.{task}.split.test, give the task more rows, or remove it from evaluation.tasks"
        raise UserError(f"no predictions for task '{task}'", Location(str(path)), hint)
    judge = next((metric for metric in parameters.metrics if isinstance(metric, JudgeScores)), None)
    judgements = job.inputs.get(f"judge/{role}")
    return with_judgements(predictions, judgements, judge) if judge and judgements else predictions


def _differences(parameters: Parameters, pair: Pair, ours: Measured, theirs: Measured) -> dict[str, Difference]:
    """The difference (ours minus theirs) of every value, on the rows that both models answered."""
    mine, yours = pair.common()
    if [one.id for one in mine] != [one.id for one in pair.ours]:
        ours = measure(mine, parameters.metrics, pair.ours_at)
    if [one.id for one in yours] != [one.id for one in pair.theirs]:
        theirs = measure(yours, parameters.metrics, pair.theirs_at)
    return ours.differences(theirs, parameters.statistics)


def _win_rate(parameters: Parameters, verdicts: Path, pair: Pair) -> tuple[Difference | None, dict[str, Any]]:
    """Our win rate against theirs, and the numbers of rows by outcome; no difference if no row was judged.

    A row counts as 1 for a win, 0 for a loss and 0.5 for a tie, the mean over both orders of the answers; what is theirs is the rest of 1.
    So the bootstrap draws rows with both their verdicts, and the permutation test exchanges the sides of rows.
    """
    found = wins(verdicts, *pair.common())
    scores = list(found.by_row.values())
    if not scores:
        return None, found.counts()
    ours, theirs = (
        Measured((statistic,), np.asarray(statistic.rows, np.float64))
        for statistic in (mean_of(WIN_RATE, scores, bounded=True), mean_of(WIN_RATE, [1 - score for score in scores], bounded=True))
    )
    difference = ours.differences(theirs, parameters.statistics)[WIN_RATE]
    rate = ours.scores(parameters.statistics)[WIN_RATE]
    return difference, {**{key: round(getattr(rate, key), DIGITS) for key in ("value", "low", "high")}, **found.counts()}


def _metrics(task: str, scores: Mapping[str, Score], measured: Measured, compared: list[Compared]) -> Metrics:
    """A task's values, their differences from the base, the methods behind words and intervals, and rows that a metric cannot tokenize."""
    found: Metrics = {"rows": next(iter(scores.values())).rows}
    found |= {name: round(score.value, DIGITS) for name, score in scores.items()}
    change = {one.metric: round(one.difference.difference, DIGITS) for one in compared if one.task == task and one.other == BASE}
    more = {
        "change": change,
        "segmentation": dict(measured.segmentation),
        "unseen_rows": dict(measured.blind),
        "intervals": {name: score.interval for name, score in scores.items()},
    }
    return found | {name: value for name, value in more.items() if value}


def _write(
    parameters: Parameters,
    job: Job,
    scores: Mapping[str, Mapping[str, Mapping[str, Score]]],
    compared: list[Compared],
    measured: Mapping[str, Measured],
) -> None:
    signatures = {s.name: s.signature for one in measured.values() for s in one.statistics if s.signature}
    segmentation = {name: how for one in measured.values() for name, how in one.segmentation.items()}
    unseen = {task: dict(one.blind) for task, one in measured.items() if one.blind}
    models = {
        model: {task: {k: _rounded(asdict(v)) for k, v in found.items()} for task, found in of.items()} for model, of in scores.items()
    }
    told = {"signatures": signatures, "segmentation": segmentation, "unseen_rows": unseen}
    _write_json(job.output / "scores.json", {"models": models, **told})
    _write_json(job.output / "comparisons.json", _comparisons(parameters, compared))
    assert job.plot
    with job.plot.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for model, of in scores.items():
            label = "" if model == parameters.model else f"{model}: "
            for task, found in of.items():
                for metric, score in found.items():
                    values = _rounded({column: getattr(score, column) for column in COLUMNS[4:]}).values()
                    writer.writerow([f"{label}{task} {metric}", model, task, metric, *values])


def _comparisons(parameters: Parameters, compared: list[Compared]) -> dict[str, Any]:
    """All differences, which of them are significant, and the test."""
    settings = parameters.statistics
    corrected = _corrected(parameters, compared)
    rows = [
        {
            "task": one.task,
            "metric": one.metric,
            "model": parameters.model,
            "other": one.other,
            **_rounded(asdict(one.difference)),
            "p_corrected": round(p, DIGITS),
            "real": p < 1 - settings.confidence,
            "trained_on": one.task in parameters.trained_on,
        }
        for one, p in ((one, corrected[one.task, one.metric, one.other]) for one in compared)
    ]
    intervals = {"of proportions": PAIRED, "of all other values": PAIRED_BOOTSTRAP}
    method = {"interval": intervals, "test": "paired permutation", **settings.model_dump(), "corrected_over": "one metric"}
    return {"method": method, "comparisons": rows, "forgetting": [row for row in rows if row["other"] == BASE and not row["trained_on"]]}


def _corrected(parameters: Parameters, compared: list[Compared]) -> dict[tuple[str, str, str], float]:
    """Corrected p-values by (model, task, metric); a family is all comparisons of one metric over tasks and models."""
    correct = CORRECTIONS[parameters.statistics.correction]
    found: dict[tuple[str, str, str], float] = {}
    for metric in dict.fromkeys(one.metric for one in compared):
        family = [one for one in compared if one.metric == metric]
        values = correct([one.difference.p for one in family])
        found |= {(one.task, one.metric, one.other): value for one, value in zip(family, values, strict=True)}
    return found


def _rounded(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: round(value, DIGITS) if isinstance(value, float) else value for name, value in values.items()}


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n", "utf-8")
