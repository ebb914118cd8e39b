"""What a build has changed in the results: adapters and metrics of experiments that had been evaluated before."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from engine.core.graph import Graph
from engine.dvc.store import Store
from engine.identity.text import short
from engine.results.ranking import number
from engine.results.table import digest_of, scores_of

if TYPE_CHECKING:
    from engine.spec.sections import Spec


@dataclass(frozen=True)
class Recorded:
    """What is recorded of one experiment."""

    digest: str | None
    """The content address of its adapter or model."""
    scores: Mapping[str, Mapping[str, float]]
    """Values by task and metric."""


def recorded(specs: "Iterable[Spec]", graph: Graph, store: Store) -> dict[str, Recorded]:
    """The evaluated experiments of SPECS by name, whether or not they are up to date."""
    found = {}
    for spec in specs:
        if scores := scores_of(graph[f"evaluate-{spec.name}"], store):
            digest = digest_of(graph[f"train-{spec.name}"], store) if spec.experiment.training else None
            found[spec.name] = Recorded(digest, scores)
    return found


def changes(before: Mapping[str, Recorded], after: Mapping[str, Recorded], metric: str) -> list[str]:
    """A line for each experiment whose adapter or values differ: METRIC by task, other metrics counted; empty if BEFORE is."""
    said = []
    for name, now in after.items() if before else ():
        if (then := before.get(name)) is None:
            said.append(f"{name}: evaluated for the first time")
            continue
        # A clone has the values, from git, and not the adapter's statement.
        parts = [f"adapter {short(then.digest)} → {short(now.digest)}"] if then.digest and now.digest and then.digest != now.digest else []
        moved = [
            (task, one, then.scores.get(task, {}).get(one), value)
            for task, values in now.scores.items()
            for one, value in values.items()
            if isinstance(value, float) and then.scores.get(task, {}).get(one) != value
        ]
        parts += [f"{metric} on {task} {_between(old, new)}" for task, one, old, new in moved if one == metric]
        if others := sorted({one for _, one, _, _ in moved} - {metric}):
            parts.append(f"also {', '.join(others)}")
        said += [f"{name}: {'; '.join(parts)}"] if parts else []
    return said


def _between(old: float | None, new: float) -> str:
    """Both values, with as many decimals as tell them apart."""
    if old is None or number(old) != number(new):
        return f"{number(old)} → {number(new)}"
    return f"{old:.4f} → {new:.4f}"
