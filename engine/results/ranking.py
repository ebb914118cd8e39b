"""Which experiments are best on which tasks, how sure that is, and the same in sentences."""

from collections.abc import Sequence
from enum import Enum
from typing import TYPE_CHECKING

from stages.score import WITHOUT_BETTER

if TYPE_CHECKING:
    from engine.results.table import Result

LOWER_IS_BETTER = {"validation_loss", "validation_cross_entropy", "loss", "perplexity", "runaway_rate"}


class Standing(Enum):
    """How an experiment's value on a task stands to the best value on it; the values are the marks in tables."""

    BEST = "*"
    UNCLEAR = "~"
    """Lower than the best, but not clearly: the comparison of the two is not significant or, without one, their intervals overlap."""
    WORSE = " "


_LEGEND = "* best on the task; ~ not clearly worse: no significant difference from the best, or overlapping intervals"


def standings(found: "Sequence[Result]", metric: str, task: str) -> dict[str, Standing]:
    """The standing of each experiment that has METRIC on TASK, by name.

    Empty if nothing can be ranked: a metric without a better direction, fewer than two experiments, values of different splits, or
    without intervals, as in a clone that has the values and not the artifacts.
    """
    measured = [result for result in found if isinstance(result.scores.get(task, {}).get(metric), float)]
    known = all(metric in result.intervals.get(task, {}) for result in measured)
    if metric in WITHOUT_BETTER or len(measured) < 2 or len({result.split for result in measured}) > 1 or not known:
        return {}
    choose = min if metric in LOWER_IS_BETTER else max
    top = choose(result.scores[task][metric] for result in measured)
    best = [result for result in measured if result.scores[task][metric] == top]
    return {
        result.experiment: Standing.BEST
        if result in best
        else Standing.UNCLEAR
        if any(_unclear(result, other, metric, task) for other in best)
        else Standing.WORSE
        for result in measured
    }


def tasks_with(found: "Sequence[Result]", metric: str) -> list[str]:
    """The tasks on which any experiment has METRIC, in their order."""
    return list(dict.fromkeys(task for result in found for task, scores in result.scores.items() if metric in scores))


def legend(found: "Sequence[Result]", metric: str) -> str | None:
    """What the marks in a table of METRIC mean; None if nothing can be ranked, so that it has none."""
    return _LEGEND if any(standings(found, metric, task) for task in tasks_with(found, metric)) else None


def _unclear(one: "Result", other: "Result", metric: str, task: str) -> bool:
    for result, name in ((one, other.experiment), (other, one.experiment)):
        for compared in result.comparisons:
            if (compared["task"], compared["metric"], compared["other"]) == (task, metric, name):
                return not compared["real"]
    mine, theirs = (result.intervals[task][metric] for result in (one, other))
    return max(mine["low"], theirs["low"]) <= min(mine["high"], theirs["high"])


def headline(found: "Sequence[Result]", metric: str) -> list[str]:
    """What METRIC says, in sentences: which experiments are best, and how far those trained on one task get on the others."""
    tasks = tasks_with(found, metric)
    ranks = {task: standings(found, metric, task) for task in tasks}
    best = {
        result.experiment: [task for task in tasks if ranks[task].get(result.experiment) is Standing.BEST]
        for result in found
        if any(ranks.values())
    }
    said = []

    def tell(where: str, names: Sequence[str], close: Sequence[str], among: int, on: Sequence[str]) -> None:
        """Say that NAMES, of so many AMONG which they are ranked, have the best value on the tasks ON, and that CLOSE are close to it."""
        what = "Best" if len(names) < among else "No difference"
        unclear = f"; not clearly worse: {_and(close)}" if close else ""
        said.append(f"{what} on {where}: {_and(names)} ({metric} {_range(found, metric, names, on)}){unclear}.")

    if everywhere := [name for name, on in best.items() if len(on) == len(tasks)]:
        nowhere_worse = [name for name in best if all(ranks[task].get(name, Standing.WORSE) is not Standing.WORSE for task in tasks)]
        where = f"each of the {len(tasks)} tasks" if len(tasks) > 1 else tasks[0]
        tell(where, everywhere, [name for name in nowhere_worse if name not in everywhere], len(best), tasks)
    else:
        for task in tasks:
            if names := [name for name, on in best.items() if task in on]:
                close = [name for name, standing in ranks[task].items() if standing is Standing.UNCLEAR]
                tell(task, names, close, len(ranks[task]), [task])
    alone = [(result, task) for result in found if len(result.tasks) == 1 for task in tasks if task not in result.tasks]
    elsewhere = [
        (result.scores[task][metric], result.experiment, task)
        for result, task in alone
        if isinstance(result.scores.get(task, {}).get(metric), float)
    ]
    if elsewhere and any(ranks.values()):
        value, name, task = (min if metric in LOWER_IS_BETTER else max)(elsewhere, key=lambda one: one[0])
        said.append(f"Experiments trained on one task reach at best {number(value)} on any other ({name} on {task}).")
    if len({result.split for result in found}) > 1:
        said.append("Not ranked: values of different splits are not comparable.")
    elif len(found) > 1 and tasks and metric not in WITHOUT_BETTER and not any(ranks.values()):
        said.append("Not ranked: there are no intervals here; engine build restores them, with --pull from DVC's remote.")
    if stale := [result.experiment for result in found if not result.current]:
        said.append(f"Out of date, or not restored here: {_and(stale)}.")
    return said


def _range(found: "Sequence[Result]", metric: str, names: Sequence[str], tasks: Sequence[str]) -> str:
    """The value, or the lowest and highest values, of NAMES on TASKS; a single value with its interval."""
    chosen = [(result, task) for result in found if result.experiment in names for task in tasks]
    values = sorted({number(result.scores[task][metric]) for result, task in chosen}, key=float)
    around = {tuple(number(result.intervals.get(task, {}).get(metric, {}).get(end)) for end in ("low", "high")) for result, task in chosen}
    if len(values) > 1:
        return f"{values[0]} to {values[-1]}"
    (low, high), *others = around
    return values[0] if others or "–" in (low, high) else f"{values[0]} [{low}, {high}]"


def _and(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def number(value: float | None) -> str:
    """A score as tables show it."""
    return "–" if value is None else f"{value:.2f}"
