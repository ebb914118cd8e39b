"""Caches the costs of a plan until anything that they were computed from changes; a hit reads neither records nor models."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from engine.core import memo
from engine.core.digests import canonical, digest
from engine.dvc import dvcfile, run_records
from engine.dvc.disk import Disk
from engine.dvc.dvcfile import Entry
from engine.dvc.run_records import RunRecord
from engine.plan.decide import Action, Plan
from engine.plan.project import Project

Known = Mapping[str, Any]
"""The facts about a step as plain JSON values; see engine.plan.step_estimates.Facts."""


@dataclass(frozen=True)
class Costs:
    """The facts about each step of a plan, by step name, and the trainings that do not fit their device."""

    steps: Mapping[str, Known]
    shortages: tuple[str, ...]
    """One message per training that does not fit the device memory stated in its spec."""
    unchecked: tuple[str, ...]
    """The trainings for which this is not known yet."""


@dataclass
class Traced(Disk):
    """A disk that records which files were read."""

    seen: dict[str, Entry | None] = field(default_factory=dict)

    def metrics(self, path: str) -> Mapping[str, Any]:
        """A metrics file of the workspace; empty if there is none."""
        self.seen[path] = self.entry(path)
        return super().metrics(path)

    def run_record(self, step: str, statement: str) -> RunRecord | None:
        """The cached record of the run that wrote a statement."""
        folder = f"{self.cache}/{run_records.folder_of(step, statement)}"
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
        return costs  # requests to chat teachers depend on sources and cached answers, which are not traced
    seen = {name: _md5(entry) for name, entry in traced.seen.items()}
    memo.save(path, {"key": key, "seen": seen, "steps": costs.steps, "shortages": costs.shortages, "unchecked": costs.unchecked})
    return costs


def _key(project: Project, plan: Plan, store: Disk) -> str:
    """Everything that the costs depend on besides the traced files: specs and code, decisions, records, and this machine."""
    decided = [[decision.name, decision.action] for decision in plan.decisions]
    return digest(canonical([project.outline.state, decided, _md5(store.entry(dvcfile.LOCK)), list(os.uname()), os.cpu_count()]))


def _md5(entry: Entry | None) -> str | None:
    return entry.md5 if entry else None


def _looked_up(project: Project, plan: Plan, store: Disk) -> Costs:
    from engine.plan.step_estimates import Facts, device_limits, facts_of, shortages, unchecked, with_requests

    graph = project.graph
    facts = {d.name: facts_of(graph[d.name], plan, graph, store) for d in plan.decisions if d.name in graph}
    facts = with_requests(facts, plan, graph, project.root)
    limits = device_limits(project.specs, graph)
    steps = {decision.name: facts.get(decision.name, Facts()).as_data() for decision in plan.decisions}
    return Costs(steps, tuple(shortages(plan, facts, limits)), tuple(unchecked(plan, facts, limits)))


def expected_seconds(plan: Plan, costs: Costs) -> tuple[float, int]:
    """The total seconds of the steps that may run, each as in its last run, and the number of steps without an earlier run."""
    seconds = [
        costs.steps[d.name]["seconds"] for d in plan.decisions if d.action in (Action.RUN, Action.MAYBE) and d.name != dvcfile.RESOLVE
    ]
    return sum(value or 0.0 for value in seconds), seconds.count(None)
