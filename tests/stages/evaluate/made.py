"""Predictions and their files, made by hand."""

from dataclasses import replace
from pathlib import Path

from stages.rows.prediction import Prediction
from stages.rows.predictions import write_predictions


def prediction(answer="a", reference="a", ended=True, tokens=1, prompt="prompt", **values):
    return Prediction("words", "id", prompt, reference, answer, "stop" if ended else "length", tokens, **values)


def rows_of(answers, references, **values):
    """Predictions with ids of their own."""
    pairs = enumerate(zip(answers, references, strict=True))
    return [replace(prediction(answer, reference, **values), id=f"row-{n}", prompt=f"prompt {n}") for n, (answer, reference) in pairs]


def write(path: Path, predictions) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_predictions(path, predictions)
    return path


def values(metric, predictions):
    """The values of a metric, by name."""
    import numpy as np

    return {s.name: float(s.value(np.asarray(s.rows, float).sum(0))) for s in metric.measure(predictions)}
