"""What objectives on answers and distillation measured of validation rows, and what learning from preferences changed beside it."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from engine.results.ranking import number

if TYPE_CHECKING:
    from engine.results.table import Result


class HeldOut(NamedTuple):
    """A table with its title and its legend."""

    title: str
    columns: tuple[str, ...]
    rows: list[list[str]]
    legend: str


_OF_ANSWERS = {
    "accuracy": "accuracy",
    "margin": "margin",
    "chosen_tokens": "tokens of chosen",
    "rejected_tokens": "tokens of rejected",
    "chosen_log_ratio": "log-ratio of chosen",
    "rejected_log_ratio": "log-ratio of rejected",
    "kl": "divergence",
}
_TOLD_OF_ANSWERS = (
    "accuracy: share of the pairs whose chosen answer has the higher reward (of answers judged alone: of rewards with the right sign); "
    "margin: mean difference of the rewards, which scale with beta; tokens: mean lengths of the given answers; "
    "log-ratio: how much likelier they are than under the reference, nats per answer, whatever beta is; divergence: estimated by kto"
)
_OF_A_TEACHER = {"kl": "divergence", "cross_entropy": "cross entropy", "agreement": "agreement"}
_TOLD_OF_A_TEACHER = (
    "divergence from the teacher and cross entropy in nats per token; agreement: share of tokens whose likeliest is the teacher's"
)
_TOLD_ELSEWHERE = "tasks that were not trained on, and lengths of answers on all, against the models that they are compared with"


def held_out_tables(found: "Sequence[Result]") -> list[HeldOut]:
    """The tables of what FOUND experiments learned besides cross entropy; empty without any such training."""
    on_answers = [one for one in found if learns_from_answers(one)]
    tables = [
        HeldOut("preferences on validation rows", *_measured(on_answers, _OF_ANSWERS), _TOLD_OF_ANSWERS),
        HeldOut("what learning from preferences changed elsewhere", *_elsewhere(on_answers), _TOLD_ELSEWHERE),
        HeldOut(
            "distillation on validation rows",
            *_measured([one for one in found if one.objective == "distill"], _OF_A_TEACHER),
            _TOLD_OF_A_TEACHER,
        ),
    ]
    return [table for table in tables if table.rows]


def learns_from_answers(one: "Result") -> bool:
    """Whether an experiment learned from better and worse answers."""
    return any("accuracy" in values for values in one.held_out.values())


def _measured(found: "Sequence[Result]", names: Mapping[str, str]) -> tuple[tuple[str, ...], list[list[str]]]:
    rows = [
        [one.experiment, one.objective, task, *(_shown(name, values.get(name)) for name in names)]
        for one in found
        for task, values in one.held_out.items()
    ]
    return ("experiment", "objective", "task", *names.values()), rows


def _shown(name: str, value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}" if name.endswith("_tokens") else f"{value:.3f}"


_ELSEWHERE = (
    "experiment",
    "task",
    "trained on it",
    "metric",
    "value",
    "compared with",
    "its value",
    "difference",
    "interval",
    "significant",
)


def _elsewhere(found: "Sequence[Result]") -> tuple[tuple[str, ...], list[list[str]]]:
    """What was forgotten, and whether answers run longer."""
    rows = [
        _compared(one.experiment, pair) for one in found for pair in one.comparisons if not pair["trained_on"] or pair["metric"] == "length"
    ]
    return _ELSEWHERE, rows


def _compared(experiment: str, pair: Mapping[str, Any]) -> list[str]:
    trained_on, real = ("yes" if pair[key] else "no" for key in ("trained_on", "real"))
    difference, low, high = (f"{pair[key]:+.3g}" for key in ("difference", "low", "high"))
    value, before = number(pair["value"]), number(pair["other_value"])
    return [experiment, pair["task"], trained_on, pair["metric"], value, pair["other"], before, difference, f"[{low}, {high}]", real]
