"""How often the answer makes the same tool calls as the reference, with the same arguments."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Literal

from engine.core.errors import UserError
from engine.core.part import Part
from stages.evaluate.metrics.statistic import Prediction, Statistic, ratio_of
from stages.rows.messages import same_json

_Call = Mapping[str, Any]


class ToolCalls(Part):
    """Tool calls compared by name and by arguments as JSON, ignoring the order of keys; the order of several calls is significant."""

    kind: Literal["tool_calls"] = "tool_calls"
    needs_reference: ClassVar[bool] = True

    def measure(self, predictions: Sequence[Prediction]) -> list[Statistic]:
        """`tool_calls` and `tool_names`, 0 to 1: share of rows with equal calls, among rows whose reference or answer calls a tool.

        An answer that hit the length limit never matches. Raises UserError if no reference calls a tool.
        """
        if not any(p.reference_calls for p in predictions):
            task = predictions[0].task if predictions else "?"
            hint = "remove it from evaluation.metrics, or give the task rows whose last message has tool_calls"
            raise UserError(f"metric 'tool_calls' has nothing to measure: no reference of task '{task}' calls a tool", hint=hint)
        calling = [bool(p.calls or p.reference_calls) for p in predictions]
        return [
            ratio_of(name, [called and _equal(p, same) for called, p in zip(calling, predictions, strict=True)], calling)
            for name, same in (("tool_calls", _same), ("tool_names", _same_name))
        ]


def _equal(prediction: Prediction, same: Callable[[_Call, _Call], bool]) -> bool:
    given, wanted = prediction.calls or [], prediction.reference_calls or []
    return prediction.ended and len(given) == len(wanted) and all(map(same, given, wanted))


def _same(one: _Call, other: _Call) -> bool:
    return _same_name(one, other) and same_json(one["arguments"], other["arguments"])


def _same_name(one: _Call, other: _Call) -> bool:
    return bool(one["name"] == other["name"])
