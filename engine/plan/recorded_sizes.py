"""The size of a step that is built, as text, from its metrics; what they do not say, as in records of other versions, is left out."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from engine.core.part import Kind
from engine.estimate.training import gigabytes
from engine.plan.shares import realised_shares
from stages import evaluate, export, generate, logits, mix, pair, predict, reference, split, tokenize, train


def recorded_sizes(kind: Kind, metrics: Mapping[str, Any]) -> tuple[str, ...]:
    """What METRICS of a step of KIND say about its size; empty if they say nothing."""
    told = _TOLD.get(kind)
    return told(metrics) if told else _counted(metrics, "parameters", "parameters")


def rounded(count: float) -> str:
    """Three significant digits and a unit: 98304 is `98.3 k`."""
    for factor, unit in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if count >= factor:
            return f"{count / factor:.3g}{unit}"
    return f"{count:g}"


def _generated(metrics: Mapping[str, Any]) -> tuple[str, ...]:
    return _counted(metrics, "rows_out", "rows")


def _mixed(metrics: Mapping[str, Any]) -> tuple[str, ...]:
    return (*_counted(metrics, "rows"), *_counted(metrics, "bins"), *realised_shares(metrics))


def _divided(metrics: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(text for name in ("train", "validation", "test") for text in _counted(metrics, name))


def _tokenized(metrics: Mapping[str, Any]) -> tuple[str, ...]:
    return (f"{_sum(metrics, 'tokens') or 0:,} tokens",) if metrics else ()


def _compared(metrics: Mapping[str, Any]) -> tuple[str, ...]:
    """Pairs, judged answers or mismatched answers: whatever the reference model was asked."""
    found = {unit: _sum(metrics, key) for key, unit in _ANSWERS.items()}
    # A split without rows counts pairs, whatever the others have.
    return tuple(f"{count:,} {unit}" for unit, count in found.items() if count) or (("0 pairs",) if 0 in found.values() else ())


_ANSWERS = {"pairs": "pairs", "desirable": "desirable", "undesirable": "undesirable", "answers": "mismatched answers"}


def _taught(metrics: Mapping[str, Any]) -> tuple[str, ...]:
    size = _sum(metrics, "bytes")
    return () if size is None else (gigabytes(size),)


def _paired(metrics: Mapping[str, Any]) -> tuple[str, ...]:
    (*pairs,), (*prompts,) = _counted(metrics, "pairs"), _counted(metrics, "prompts")
    return (" of ".join([*pairs, *prompts]),) if pairs else ()


def _trained(metrics: Mapping[str, Any]) -> tuple[str, ...]:
    trainable, total = metrics.get("trainable_parameters"), metrics.get("parameters")
    return (*_counted(metrics, "steps"), *((f"{rounded(trainable)} trainable of {rounded(total)}",) if trainable and total else ()))


def _predicted(metrics: Mapping[str, Any]) -> tuple[str, ...]:
    return (f"{sum(_answers(metrics)):,} predictions",) if metrics else ()


def _answers(metrics: Mapping[str, Any]) -> Iterator[int]:
    """The number of predictions for every task, and for every adapter if there are several."""
    for part in metrics.values():
        if isinstance(part, dict):
            yield from [part["rows_out"]] if isinstance(part.get("rows_out"), int) else _answers(part)


def _evaluated(metrics: Mapping[str, Any]) -> tuple[str, ...]:
    count = sum(isinstance(value, float) for part in metrics.values() if isinstance(part, dict) for value in part.values())
    return (f"{count:,} values",) if metrics else ()


def _exported(metrics: Mapping[str, Any]) -> tuple[str, ...]:
    size, equal, rows = (metrics.get(key) for key in ("bytes", "equal_answers", "rows"))
    alike = (f"{equal:.0%} of {rows:,} answers equal",) if equal is not None and rows is not None else ()
    return (*((gigabytes(size),) if size is not None else ()), *alike)


_TOLD: dict[Kind, Callable[[Mapping[str, Any]], tuple[str, ...]]] = {
    generate.KIND: _generated,
    mix.KIND: _mixed,
    split.KIND: _divided,
    tokenize.KIND: _tokenized,
    reference.KIND: _compared,
    logits.KIND: _taught,
    pair.KIND: _paired,
    train.KIND: _trained,
    predict.KIND: _predicted,
    evaluate.KIND: _evaluated,
    export.KIND: _exported,
}


def _counted(metrics: Mapping[str, Any], key: str, unit: str | None = None) -> tuple[str, ...]:
    """The count under KEY with its unit, which is called like the key unless given; empty without a count."""
    return (f"{metrics[key]:,} {unit or key}",) if isinstance(metrics.get(key), int) else ()


def _sum(metrics: Mapping[str, Any], key: str) -> int | None:
    """The sum of KEY over the splits of METRICS; None if no split has it."""
    found = [part[key] for part in metrics.values() if isinstance(part, dict) and isinstance(part.get(key), int)]
    return sum(found) if found else None
