"""What a plan costs, remembered for as long as nothing has changed that it was read from; then neither records nor models are looked at."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from engine.core import memo
from engine.core.digests import canonical, digest
from engine.dvc import dvcfile, records
from engine.dvc.dvcfile import Entry
from engine.dvc.records import RunRecord
from engine.dvc.store import Disk
from engine.plan.decide import Action, Plan
from engine.plan.project import Project

Known = Mapping[str, Any]
"""What is known of a step as plain JSON values; see engine.plan.step_estimates.Facts."""


@dataclass(frozen=True)
class Costs:
    """What is known of each step of a plan, by name, and what stands against a training."""

    steps: Mapping[str, Known]
    shortages: tuple[str, ...]
    """One message for each training that cannot fit the device that its spec states."""
    unchecked: tuple[str, ...]
    """The trainings of which that cannot be told yet."""


@dataclass
class Traced(Disk):
    """A disk that notes which files it was asked for."""

    seen: dict[str, Entry | None] = field(default_factory=dict)

    def metrics(self, path: str) -> Mapping[str, Any]:
        """A metrics file of the workspace, empty where there is none."""
        self.seen[path] = self.entry(path)
        return super().metrics(path)

    def run_record(self, step: str, statement: str) -> RunRecord | None:
        """The record of the run that made a statement, as the cache has it."""
        folder = f"{self.cache}/{records.folder_of(step, statement)}"
        self.seen[folder] = self.entry(folder)
        return super().run_record(step, statement)


def costs_of(project: Project, plan: Plan, store: Disk) -> Costs:
    """The costs of PLAN, which was made with STORE."""
    path = memo.memo_path(project.root, "costs")
    found = memo.load(path)
    key = _key(project, plan, store)
    if found and found.get("key") == key and all(_md5(store.entry(name)) == md5 for name, md5 in found["seen"].items()):
        return Costs(found["steps"], tuple(found["shortages"]), tuple(found["unchecked"]))
    traced = Traced(store.root, store.hashes)
    costs = _looked_up(project, plan, traced)
    store.hashes.save()
    if any(known.get("asking") for known in costs.steps.values()):
        return costs  # what chat teachers would be asked follows from sources and from answers that are kept elsewhere
    seen = {name: _md5(entry) for name, entry in traced.seen.items()}
    memo.save(path, {"key": key, "seen": seen, "steps": costs.steps, "shortages": costs.shortages, "unchecked": costs.unchecked})
    return costs


def _key(project: Project, plan: Plan, store: Disk) -> str:
    """All that the costs depend on beside the files that are read for them: specs and code, decisions, records, and this machine."""
    decided = [[decision.name, decision.action] for decision in plan.decisions]
    return digest(canonical([project.outline.state, decided, _md5(store.entry(dvcfile.LOCK)), list(os.uname()), os.cpu_count()]))


def _md5(entry: Entry | None) -> str | None:
    return entry.md5 if entry else None


def _looked_up(project: Project, plan: Plan, store: Disk) -> Costs:
    from engine.plan.step_estimates import Facts, device_limits, facts_of, shortages, unchecked, with_asking

    graph = project.graph
    facts = {d.name: facts_of(graph[d.name], plan, graph, store) for d in plan.decisions if d.name in graph}
    facts = with_asking(facts, plan, graph, project.root)
    limits = device_limits(project.specs, graph)
    steps = {decision.name: facts.get(decision.name, Facts()).as_data() for decision in plan.decisions}
    return Costs(steps, tuple(shortages(plan, facts, limits)), tuple(unchecked(plan, facts, limits)))


def expected_seconds(plan: Plan, costs: Costs) -> tuple[float, int]:
    """The seconds that earlier runs give for what may run now, and the number of steps that have no earlier run."""
    seconds = [
        costs.steps[d.name]["seconds"] for d in plan.decisions if d.action in (Action.RUN, Action.MAYBE) and d.name != dvcfile.RESOLVE
    ]
    return sum(value or 0.0 for value in seconds), seconds.count(None)
