"""Which steps of a plan would resume from a checkpoint that an earlier attempt has left."""

from collections.abc import Mapping
from pathlib import Path

from engine.core.digests import scratch_name
from engine.core.graph import ARTIFACTS, Graph, Step
from engine.dvc import dvcfile
from engine.dvc.store import Store
from engine.plan.decide import Action, Plan, Planner
from stages.process.saved import Saved, saved

SCRATCH = f"{ARTIFACTS}/scratch"


def scratch_of(step: Step, planner: Planner) -> str | None:
    """The name of the folder for the checkpoints of STEP as it is now; None if an input is not known yet."""
    needs, unknown = planner.needs(step)
    # The file that only orders `resolve` before the step is not one of its inputs.
    read = {path: entry.md5 for path, entry in needs.items() if path != dvcfile.RESOLVED}
    return None if unknown else scratch_name(step.name, planner.identities[step.name], read)


def resumes(root: Path, step: Step, planner: Planner) -> Saved | None:
    """The checkpoint in ROOT from which STEP would resume, None if there is none of this recipe and these inputs."""
    if not any((root / SCRATCH).glob(f"{step.name}-*")):
        return None
    name = scratch_of(step, planner)
    return saved(root / SCRATCH / name) if name else None


def resuming(root: Path, plan: Plan, graph: Graph, store: Store, identities: Mapping[str, str]) -> dict[str, Saved]:
    """The checkpoints from which steps of PLAN that will run would resume, by step."""
    present = {path.name.rpartition("-")[0] for path in (root / SCRATCH).glob("*")}
    running = [graph[d.name] for d in plan.decisions if d.name in present and d.name in graph and d.action is Action.RUN]
    if not running:
        return {}
    planner = Planner(graph, store, identities)
    for step in graph:
        planner.decide(step)
    return {step.name: found for step in running if (found := resumes(root, step, planner))}
