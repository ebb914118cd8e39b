"""Files of predictions: what a model answered to the test rows of one task, one JSON object a line."""

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, get_args

from engine.errors import Location, UserError
from stages.common.jsonl import read_objects, type_name, write_rows

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
}


def write_predictions(path: Path, predictions: Iterable[Prediction]) -> int:
    """Write PREDICTIONS, one a line, and return how many there were."""
    return write_rows(path, map(_row, predictions))


def _row(prediction: Prediction) -> dict[str, object]:
    """PREDICTION as a line holds it, without what only rows with several references have."""
    return {name: value for name, value in asdict(prediction).items() if name != "references" or value}


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
