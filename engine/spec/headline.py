"""The value that stands for a metric: in headlines, and in the scores of answers."""

from typing import TYPE_CHECKING

from stages.evaluate.metrics.json_validity import JsonValidity

if TYPE_CHECKING:
    from stages.evaluate.metrics import Metric

_NAMES = {"rouge": "rougeL", "classification": "macro_f1"}
"""The value that stands for a metric with several; any other metric has a value of its own name."""


def headline(metric: "Metric") -> str:
    """The name of the value that stands for METRIC."""
    if isinstance(metric, JsonValidity):
        return "schema_rate" if metric.fields else "json_rate"
    return _NAMES.get(metric.kind, metric.kind)
