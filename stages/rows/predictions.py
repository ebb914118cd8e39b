"""Files of predictions: what a model answered to the test rows of one task, one JSON object a line."""

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args

from engine.core.errors import Location, UserError
from stages.rows.jsonl import read_objects, type_name, write_rows

FinishReason = Literal["stop", "length"]
"""`stop`: the model gave its end-of-sequence token; `length`: it was cut off."""


@dataclass(frozen=True)
class Prediction:
    """A model's answer to a prompt, the reference if there is one, and why the answer ended."""

    task: str
    id: str
    prompt: str
    reference: str | None
    answer: str | None
    """None where the row was only read, for its likelihood."""
    finish_reason: FinishReason | None
    tokens: int
    """Length of the answer, the end-of-sequence token aside."""
    loss: float | None = None
    """Minus the logarithm of the reference's likelihood, in nats, summed over its tokens; None where it was not measured."""
    loss_tokens: int = 0
    """The tokens that `loss` sums over, the end-of-sequence token among them."""
    references: tuple[str, ...] = ()
    """All references, where the row has several; the first of them is `reference`."""
    reasoning: str | None = None
    """What the model thought before the answer, with its markup, where its template writes reasoning."""
    calls: list[dict[str, Any]] | None = None
    """The calls of tools in the answer, `name` and `arguments` each; None where the row has neither tools nor calls."""
    reference_calls: list[dict[str, Any]] | None = None

    @property
    def ended(self) -> bool:
        """Whether the model ended by itself."""
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
"""Fields that most files have no use for: they are written where they hold something."""
assert {*_TYPES, "references"} == {one.name for one in fields(Prediction)}


def write_predictions(path: Path, predictions: Iterable[Prediction]) -> int:
    """Write PREDICTIONS, one a line, and return how many there were."""
    return write_rows(path, map(_row, predictions))


def _row(prediction: Prediction) -> dict[str, object]:
    """PREDICTION as a line holds it, without what only rows with several references, reasoning or calls have."""
    found = asdict(prediction)
    return {
        name: value for name, value in found.items() if (value is not None or name not in _MAY_LACK) and (value or name != "references")
    }


def read_predictions(path: Path, task: str) -> list[Prediction]:
    """The predictions in PATH, in order; raises UserError, located, where a line is none or is about another task than TASK."""
    return [prediction for _, prediction in located_predictions(path, task)]


def located_predictions(path: Path, task: str) -> Iterator[tuple[Location, Prediction]]:
    """As `read_predictions`, one by one, each with the line it stands on."""
    for where, row in read_objects(path):
        yield where, _prediction(row, task, where)


def _prediction(row: dict[str, object], task: str, where: Location) -> Prediction:
    hint = "a file that `predict` has written is needed"
    references = row.pop("references", [])
    if not isinstance(references, list) or not all(isinstance(text, str) for text in references):
        raise UserError("this line is no prediction: 'references' is no list of texts", where, hint)
    row = dict.fromkeys(_MAY_LACK) | row
    if unknown := sorted(set(row) ^ set(_TYPES)):
        raise UserError(f"this line is no prediction: {'lacks' if unknown[0] in _TYPES else 'has'} '{unknown[0]}'", where, hint)
    for name, types in _TYPES.items():
        if not isinstance(row[name], types) or isinstance(row[name], bool):
            raise UserError(f"this line is no prediction: '{name}' is {type_name(row[name])}", where, hint)
    if row["finish_reason"] not in (None, *get_args(FinishReason)):
        raise UserError(f"this line is no prediction: finish_reason is '{row['finish_reason']}'", where, hint)
    if row["task"] != task:
        raise UserError(f"this prediction is about task '{row['task']}', not '{task}'", where, "give the predictions of one task alone")
    return Prediction(**row, references=tuple(references))  # type: ignore[arg-type]
