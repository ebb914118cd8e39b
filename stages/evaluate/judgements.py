"""Files of judgements: the rows that a chat teacher made of predictions, each with its answer in JSON."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from engine.core.errors import Location, UserError
from stages.evaluate.metrics.judge_scores import Judged, JudgeScores
from stages.rows.jsonl import read_objects
from stages.rows.predictions import Prediction
from stages.rows.strict_json import parse

_HINT = "a file that the judge's own step has written is needed: build it again"


def with_judgements(predictions: Sequence[Prediction], path: Path, metric: JudgeScores) -> list[Prediction]:
    """PREDICTIONS with their scores from PATH, none for those that were not judged; raises UserError for a file of other predictions."""
    found = _scores(path, metric)
    if strangers := found.keys() - {prediction.id for prediction in predictions}:
        raise UserError(f"row {min(strangers)} is judged here, and is none of the predictions", Location(str(path)), _HINT)
    return [Judged(**vars(prediction), scores=found.get(prediction.id)) for prediction in predictions]


def _scores(path: Path, metric: JudgeScores) -> dict[str, Mapping[str, int]]:
    found: dict[str, Mapping[str, int]] = {}
    for where, row in read_objects(path):
        carried, said = row.get("carried"), row.get("completion")
        if not isinstance(carried, dict) or not isinstance(carried.get("id"), str) or not isinstance(said, str):
            raise UserError("this line is no judgement: it lacks the row's id or what the judge said", where, _HINT)
        if carried["id"] in found:
            raise UserError(f"row {carried['id']} is judged twice", where, _HINT)
        found[carried["id"]] = _valid(said, metric, where)
    return found


def _valid(said: str, metric: JudgeScores, where: Location) -> Mapping[str, int]:
    """The scores in what the judge said; each is a whole number of the scale."""
    try:
        values: Any = parse(said)
        scores = {name: values[name] for name in metric.scores}
    except (ValueError, TypeError, KeyError):
        raise UserError(f"this line is no judgement: it lacks the scores {', '.join(metric.scores)}", where, _HINT) from None
    for name, score in scores.items():
        if type(score) is not int or not metric.lowest <= score <= metric.highest:
            raise UserError(f"{name} is {score!r}, which is no whole number from {metric.lowest} to {metric.highest}", where, _HINT)
    return scores
