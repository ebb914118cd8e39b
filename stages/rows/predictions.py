"""Files of predictions: a model's answers to the test rows of one task, one JSON object per line."""

from collections.abc import Iterable, Iterator
from dataclasses import asdict, fields
from pathlib import Path
from typing import get_args

from engine.core.errors import Location, UserError
from stages.rows.jsonl import read_objects, write_rows
from stages.rows.prediction import FinishReason, Prediction
from stages.rows.strict_json import type_name

_TYPES: dict[str, tuple[type, ...]] = {
    "task": (str,),
    "id": (str,),
    "prompt": (str,),
    "reference": (str, type(None)),
    "answer": (str, type(None)),
    "finish_reason": (str, type(None)),
    "tokens": (int,),
    "loss": (float, int, type(None)),
    "loss_tokens": (int,),
    "reasoning": (str, type(None)),
    "calls": (list, type(None)),
    "reference_calls": (list, type(None)),
}
_MAY_LACK = ("reasoning", "calls", "reference_calls")
"""Fields that are only written if they are not empty."""
assert {*_TYPES, "references"} == {one.name for one in fields(Prediction)}


def write_predictions(path: Path, predictions: Iterable[Prediction]) -> int:
    """Write PREDICTIONS, one per line, and return their number."""
    return write_rows(path, map(_row, predictions))


def _row(prediction: Prediction) -> dict[str, object]:
    """PREDICTION as a line, without empty optional fields."""
    found = asdict(prediction)
    return {
        name: value for name, value in found.items() if (value is not None or name not in _MAY_LACK) and (value or name != "references")
    }


def read_predictions(path: Path, task: str) -> list[Prediction]:
    """The predictions in PATH, in order; raises UserError, at its line, for an invalid prediction or one of another task."""
    return [prediction for _, prediction in located_predictions(path, task)]


def located_predictions(path: Path, task: str) -> Iterator[tuple[Location, Prediction]]:
    """Like `read_predictions`, lazily, each with its line."""
    for where, row in read_objects(path):
        yield where, _prediction(row, task, where)


def _prediction(row: dict[str, object], task: str, where: Location) -> Prediction:
    hint = "a file written by `predict` is needed"
    references = row.pop("references", [])
    if not isinstance(references, list) or not all(isinstance(text, str) for text in references):
        raise UserError("this line is not a prediction: 'references' is not a list of texts", where, hint)
    row = dict.fromkeys(_MAY_LACK) | row
    if unknown := sorted(set(row) ^ set(_TYPES)):
        raise UserError(f"this line is not a prediction: {'lacks' if unknown[0] in _TYPES else 'has'} '{unknown[0]}'", where, hint)
    for name, types in _TYPES.items():
        if not isinstance(row[name], types) or isinstance(row[name], bool):
            raise UserError(f"this line is not a prediction: '{name}' is {type_name(row[name])}", where, hint)
    if row["finish_reason"] not in (None, *get_args(FinishReason)):
        raise UserError(f"this line is not a prediction: finish_reason is '{row['finish_reason']}'", where, hint)
    if row["task"] != task:
        raise UserError(
            f"this prediction belongs to task '{row['task']}', not '{task}'", where, "a file must contain the predictions of one task"
        )
    return Prediction(**row, references=tuple(references))  # type: ignore[arg-type]
