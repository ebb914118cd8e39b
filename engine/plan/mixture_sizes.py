"""The composition of a mixture, from the recorded token counts of its tasks; empty if a task is not tokenized yet."""

from collections.abc import Mapping
from typing import Any

from engine.core.graph import Graph, Step
from engine.dvc.store import Store
from engine.plan.shares import UNITS, shares_text
from stages import mix
from stages.mix.samplers.sizes import Size


def expected_shares(step: Step, graph: Graph, store: Store) -> tuple[str, ...]:
    """The rows per epoch and each task's share of rows, tokens and supervised tokens, as text; empty if a size is not known."""
    sizes = _sizes(step, graph, store)
    if not sizes:
        return ()
    rows = _epoch(step, sizes)
    amounts = {task: {unit: rows[task] * size.of(unit) / size.rows for unit in UNITS} for task, size in sizes.items()}
    return (f"{sum(rows.values()):,} rows per epoch", *shares_text(amounts))


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
