"""The composition of a mixture, from the recorded token counts of its tasks; empty if a task is not tokenized yet."""

from collections.abc import Mapping
from typing import Any

from engine.core.graph import Graph, Step
from engine.dvc.store import Store
from stages import mix
from stages.mix.samplers.sizes import Size

_UNITS = ("rows", "tokens", "supervised_tokens")


def expected_shares(step: Step, graph: Graph, store: Store) -> tuple[str, ...]:
    """The rows per epoch and each task's share of rows, tokens and supervised tokens, as text; empty if a size is not known."""
    sizes = _sizes(step, graph, store)
    if not sizes:
        return ()
    rows = _epoch(step, sizes)
    amounts = {task: {unit: rows[task] * size.of(unit) / size.rows for unit in _UNITS} for task, size in sizes.items()}
    return (f"{sum(rows.values()):,} rows per epoch", *_shares(amounts))


def expected_rows(step: Step, graph: Graph, store: Store) -> int | None:
    """The rows of a mixture that is not built as it is now; None if its length is not given in rows, or a size is not known."""
    assert isinstance(step.parameters, mix.Parameters)
    if step.parameters.bin_tokens is not None or step.parameters.epochs is None:
        return None
    sizes = _sizes(step, graph, store)
    return step.parameters.epochs * sum(_epoch(step, sizes).values()) if sizes else None


def _epoch(step: Step, sizes: Mapping[str, Size]) -> dict[str, int]:
    """The rows of each task in one epoch."""
    assert isinstance(step.parameters, mix.Parameters)
    rows: dict[str, int] = dict.fromkeys(sizes, 0)
    for phase in step.parameters.sampler.phases(sizes):
        for task, count in phase.items():
            rows[task] += count
    return rows


def realised_shares(metrics: Mapping[str, Any]) -> tuple[str, ...]:
    """Each task's share of a built mixture, as text, from the mixture's METRICS."""
    tasks = metrics.get("tasks", {})
    known = {task: found for task, found in tasks.items() if isinstance(found, dict) and all(unit in found for unit in _UNITS)}
    return _shares(known)


def _shares(amounts: Mapping[str, Mapping[str, float]]) -> tuple[str, ...]:
    if len(amounts) < 2:
        return ()
    totals = {unit: max(1, sum(amount[unit] for amount in amounts.values())) for unit in _UNITS}
    shares = {task: "/".join(f"{100 * amount[unit] / totals[unit]:.0f}" for unit in _UNITS) for task, amount in amounts.items()}
    return ("% of rows/tokens/supervised: " + ", ".join(f"{task} {share}" for task, share in shares.items()),)


def _sizes(step: Step, graph: Graph, store: Store) -> dict[str, Size]:
    found: dict[str, Size] = {}
    for role, item in step.inputs.items():
        train: Mapping[str, Any] = store.metrics(graph[str(item.producer)].metrics).get("train") or {}
        rows, tokens, supervised = (int(train.get(key) or 0) for key in ("rows_out", "tokens", "supervised_tokens"))
        if not (rows and tokens and supervised):
            return {}
        # A pair of answers is one row of a mixture, and two rows of tokens.
        size = Size(int(train.get("pairs") or rows), tokens, supervised)
        # If a conversation of several rows counts once, an epoch has as many rows as conversations.
        counted = train.get("conversations")
        found[role.removeprefix("tokens/")] = size.scaled(counted) if isinstance(counted, int) and counted else size
    return found
