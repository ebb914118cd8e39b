"""Files of predictions: a model's answers to the test rows of one task, one JSON object per line."""

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args

from engine.core.errors import Location, UserError
from stages.rows.jsonl import read_objects, write_rows
from stages.rows.strict_json import type_name

FinishReason = Literal["stop", "length"]
"""`stop`: the model generated an end token; `length`: the answer reached the token limit."""


@dataclass(frozen=True)
class Prediction:
    """A model's answer to a prompt, the reference if there is one, and why the answer ended."""

    task: str
    id: str
    prompt: str
    reference: str | None
    answer: str | None
    """None if only the likelihood was measured."""
    finish_reason: FinishReason | None
    tokens: int
    """Length of the answer in tokens, without the end token."""
    loss: float | None = None
    """Negative log-likelihood of the reference, in nats, summed over its tokens; None if not measured."""
    loss_tokens: int = 0
    """Number of tokens in `loss`, including the end token."""
    references: tuple[str, ...] = ()
    """All references, if the row has several; the first is `reference`."""
    reasoning: str | None = None
    """The reasoning before the answer, with its markup, if the template renders reasoning."""
    calls: list[dict[str, Any]] | None = None
    """Tool calls of the answer, with `name` and `arguments`; None if the row has neither tools nor calls."""
    reference_calls: list[dict[str, Any]] | None = None

    @property
    def ended(self) -> bool:
        """Whether the model generated an end token."""
        return self.finish_reason == "stop"


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
