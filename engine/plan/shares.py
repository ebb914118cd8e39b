"""The shares of tasks in a mixture, as text."""

from collections.abc import Mapping
from typing import Any

UNITS = ("rows", "tokens", "supervised_tokens")


def realised_shares(metrics: Mapping[str, Any]) -> tuple[str, ...]:
    """Each task's share of a built mixture, as text, from the mixture's METRICS."""
    tasks = metrics.get("tasks", {})
    known = {task: found for task, found in tasks.items() if isinstance(found, dict) and all(unit in found for unit in UNITS)}
    return shares_text(known)


def shares_text(amounts: Mapping[str, Mapping[str, float]]) -> tuple[str, ...]:
    """Each task's share of the AMOUNTS of all tasks in each unit, as text; empty if there is one task."""
    if len(amounts) < 2:
        return ()
    totals = {unit: max(1, sum(amount[unit] for amount in amounts.values())) for unit in UNITS}
    shares = {task: "/".join(f"{100 * amount[unit] / totals[unit]:.0f}" for unit in UNITS) for task, amount in amounts.items()}
    return ("% of rows/tokens/supervised: " + ", ".join(f"{task} {share}" for task, share in shares.items()),)
