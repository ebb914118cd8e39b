"""One answer of a model, as metrics see it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Prediction:
    """A model's answer to a prompt, the reference, whether the model ended by itself, and the answer's length in tokens."""

    id: str
    prompt: str
    reference: str
    answer: str
    ended: bool
    tokens: int


def mean(values: list[float]) -> float:
    return sum(values) / len(values)
