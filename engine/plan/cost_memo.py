"""Caches what each step of a plan costs, until anything that it follows from changes; a hit reads neither records nor models."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from engine.core import memo
from engine.core.digests import canonical, digest
from engine.core.graph import ARTIFACTS
from engine.dvc import dvcfile, run_records
from engine.dvc.disk import Disk
from engine.dvc.dvcfile import Entry
from engine.dvc.run_records import RunRecord
from engine.plan.decide import Action, Plan

if TYPE_CHECKING:
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


def costs_of(project: "Project", plan: Plan, store: Disk) -> Costs:
    """The costs of PLAN, which was made with STORE."""
    return _less_what_is_saved(_costs(project, plan, store), project, plan, store)


def _less_what_is_saved(costs: Costs, project: "Project", plan: Plan, store: Disk) -> Costs:
    """COSTS with the checkpoints from which steps will resume, and without the time that these have taken; looked up each time."""
    if not any((project.root / ARTIFACTS / "scratch").glob("*")):
        return costs
    from engine.plan.resuming import resuming

    steps = dict(costs.steps)
    for name, found in resuming(project.root, plan, project.graph, store, project.identities).items():
        known = steps[name]
        left = 1 - found.step / found.steps if found.steps else 1.0
        state = {"step": found.step, "steps": found.steps, "seconds": found.seconds}
        sizes = [*known["sizes"], str(found)]
        steps[name] = {**known, "sizes": sizes, "resumes": state, "seconds": known["seconds"] and known["seconds"] * left}
    return replace(costs, steps=steps)


def _costs(project: "Project", plan: Plan, store: Disk) -> Costs:
    path = memo.memo_path(project.root, "costs")
    found = memo.load(path)
    key, of = _key(project, store), _steps(project, plan)
    if not found or found.get("key") != key or any(_md5(store.entry(name)) != md5 for name, md5 in found["seen"].items()):
        found = {"of": {}, "seen": {}, "steps": {}, "shortages": (), "unchecked": ()}
    if found["of"] == of:
        return Costs(found["steps"], tuple(found["shortages"]), tuple(found["unchecked"]))
    traced = Traced(store.root, store.hashes)
    costs = _looked_up(project, plan, traced, {name: found["steps"][name] for name in _unchanged(project, found["of"], of)})
    store.hashes.save()
    if any(known.get("asking") for known in costs.steps.values()):
        return costs  # requests to chat teachers depend on sources and cached answers, which are not traced
    seen = found["seen"] | {name: _md5(entry) for name, entry in traced.seen.items()}
    memo.save(path, {"key": key, "of": of, "seen": seen, "steps": costs.steps, "shortages": costs.shortages, "unchecked": costs.unchecked})
    return costs


def _key(project: "Project", store: Disk) -> str:
    """What all costs depend on besides the traced files: code, versions, the inputs of the workspace, records, and this machine."""
    return digest(canonical([project.outline.common, _md5(store.entry(dvcfile.LOCK)), list(os.uname()), os.cpu_count()]))


def _steps(project: "Project", plan: Plan) -> dict[str, list[Any]]:
    """What the cost of each step depends on besides that of the steps before it: its decision, recipe, wiring, resources and device."""
    outline = project.outline
    named = ((d.name, d.action.value) for d in plan.decisions)
    return {
        name: [action, outline.digests.get(name), outline.resources.get(name), outline.device_memory.get(name)] for name, action in named
    }


def _unchanged(project: "Project", before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """The steps whose cost is as it was: neither they nor any step before them has changed."""
    changed = {name for name, of in now.items() if before.get(name) != of}
    for step in project.graph:
        if any(producer in changed or producer not in now for producer in step.producers):
            changed.add(step.name)
    limited = project.outline.device_memory
    # Shortages of memory are told from estimates, which are not cached.
    return [name for name, (action, *_) in now.items() if name not in changed and not (name in limited and action != Action.KEEP.value)]


def _md5(entry: Entry | None) -> str | None:
    return entry.md5 if entry else None


def _looked_up(project: "Project", plan: Plan, store: Disk, known: Mapping[str, Known]) -> Costs:
    """The costs of PLAN, of which those of KNOWN steps need not be looked up."""
    from engine.plan.step_estimates import Facts, facts_of, shortages, unchecked, with_requests

    graph, limits = project.graph, project.outline.device_memory
    facts = {d.name: facts_of(graph[d.name], plan, graph, store) for d in plan.decisions if d.name in graph and d.name not in known}
    facts = with_requests(facts, plan, graph, project.root)
    steps = {d.name: known[d.name] if d.name in known else facts.get(d.name, Facts()).as_data() for d in plan.decisions}
    return Costs(steps, tuple(shortages(plan, facts, limits)), tuple(unchecked(plan, facts, limits)))


def expected_seconds(plan: Plan, costs: Costs) -> tuple[float, int]:
    """The total seconds of the steps that may run, each as in its last run, and the number of steps without an earlier run."""
    seconds = [
        costs.steps[d.name]["seconds"] for d in plan.decisions if d.action in (Action.RUN, Action.MAYBE) and d.name != dvcfile.RESOLVE
    ]
    return sum(value or 0.0 for value in seconds), seconds.count(None)
