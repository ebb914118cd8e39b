"""Pulls results that a build would otherwise compute from DVC's remote into the caches, step by step, so that others' runs are restored.

A remote that fails or does not answer in time is reported once, and everything else is built here.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from engine.core.graph import Graph, Step
from engine.dvc import dvcfile
from engine.dvc.disk import Disk
from engine.dvc.dvcfile import Entry
from engine.dvc.remote import PATIENCE, Remote, Unreadable
from engine.dvc.run_records import RunRecord, folder_of
from engine.plan.decide import Action, Planner
from engine.plan.project import Project


@dataclass
class Puller:
    """Pulls from the default remote of a workspace, until it fails."""

    store: Disk
    remote: Remote
    warn: Callable[[str], None]
    download: bool = True
    """Whether results are pulled; False: the store is told what the remote offers, and only listings and statements are pulled."""
    _asked: set[str] = field(default_factory=set)

    def bring(self, step: Step, planner: Planner, action: Action) -> bool:
        """Pull an earlier run of STEP, if all its inputs are known; returns whether the remote had one.

        If STEP can be restored without the remote (ACTION), only the record of its run is pulled."""
        needs, unknown = planner.needs(step)
        if unknown or self.remote.failed or step.name in self._asked or action not in (Action.RUN, Action.RESTORE):
            return False
        self._asked.add(step.name)
        try:
            if action is Action.RUN:
                return self._run(step, needs)
            outputs = planner.outcomes[step.name]
            if outputs and self.store.run_record(step.name, outputs[step.provenance].md5) is None:
                self.remote.pull_run_records(folder_of(step.name, outputs[step.provenance].md5))
        except Unreadable as error:
            self._tell_unreadable(error)
        return False

    def look_ahead(self, steps: Sequence[Step], planner: Planner) -> None:
        """Ask the remote at once what `bring` will ask for each of STEPS, which are decided: one by one, a thousand take minutes."""
        keys = []
        for step in steps:
            needs, unknown = planner.needs(step)
            if not unknown and step.name not in self._asked:
                keys.append((step, dvcfile.run_key(dvcfile.command(step), needs, step.outputs)))
        if self.remote.failed or not keys:
            return
        try:
            self.remote.look_ahead(runs=[dvcfile.run_folder(key) for _, key in keys])
            outputs = [(step, run.outputs) for step, key in keys for run in self.store.runs(key) if run]
            found = [(step, made[step.artifact], made[step.provenance]) for step, made in outputs if set(made) == set(step.outputs)]
            statements = dict.fromkeys(statement.md5 for _, _, statement in found)
            listed = [] if self.download else dict.fromkeys(artifact.md5 for _, artifact, _ in found)
            records = dict.fromkeys(folder_of(step.name, statement.md5) for step, _, statement in found)
            self.remote.look_ahead(records=records, objects=statements, listed=listed)
        except Unreadable as error:
            self._tell_unreadable(error)

    def _tell_unreadable(self, error: Unreadable) -> None:
        instead = "building here instead" if self.download else "planning without it"
        hint = f"{instead}; to see why: dvc pull --run-cache ({PATIENCE} sets the timeout)"
        self.warn(f"DVC's remote cannot be read: {error}; {hint}")

    def _run(self, step: Step, needs: Mapping[str, Entry]) -> bool:
        key = dvcfile.run_key(dvcfile.command(step), needs, step.outputs)
        there = self.remote.pull_runs(dvcfile.run_folder(key))
        while self.remote.refused:
            self.warn(f"{step.name}: a run in the store does not count: {self.remote.refused.pop()}")
        recorded = self.store.record(step.name)
        # Pushed without its run-cache entry: git has the record.
        same = recorded and all(recorded.dependencies.get(path) == entry for path, entry in needs.items())
        lacking = ""
        for run in (*self.store.runs(key), recorded if same else None):
            if run is None or set(run.outputs) != set(step.outputs):
                continue
            # Files that git tracks are in no remote: the statement contains them.
            artifact, statement = (run.outputs[path] for path in (step.artifact, step.provenance))
            whole = self.remote.pull([statement.md5]) and (self.remote.pull if self.download else self.remote.has)([artifact.md5])
            if whole:
                self.remote.pull_run_records(folder_of(step.name, statement.md5))
                if not self.download and not self.store.holds(artifact):
                    self.store.offered[artifact.md5] = _told(self.store.run_record(step.name, statement.md5), artifact)
                return True
            # Git's record says nothing of the remote.
            lacking = lacking or (self.remote.lacking if run is not recorded else "")
        if there and lacking:
            self.warn(
                f"{step.name}: the store has a run of it, but {lacking} there, so it runs again; "
                "to mend the store: remove that file, if it is there, and run engine push where the step is built"
            )
        return False


def _told(ran: RunRecord | None, artifact: Entry) -> str:
    """What the plan says of a result that the remote has."""
    size = f"; {f'{artifact.size / 1e6:,.1f} MB' if artifact.size >= 1e5 else f'{artifact.size / 1e3:.1f} KB'} to download"
    if ran is None:
        return size
    host = ran.machine.get("host")
    return f", built {f'by {host} ' if host else ''}on {ran.finished[:10]}{size}"


def pull_all(project: Project, graph: Graph, puller: Puller) -> int:
    """Pull results for every step of GRAPH that would run and whose inputs are known; returns the number of steps that can be restored."""
    planner = Planner(graph, puller.store, project.identities)
    count, undecided = 0, list(graph)
    while undecided:
        waiting = {step.name for step in undecided}
        level = [step for step in undecided if waiting.isdisjoint(step.producers)]
        actions = [planner.decide(step).action for step in level]
        puller.look_ahead([step for step, action in zip(level, actions, strict=True) if action is Action.RUN], planner)
        for step, action in zip(level, actions, strict=True):
            if puller.bring(step, planner, action):
                count += planner.decide(step).action is Action.RESTORE
        puller.remote.forget()
        undecided = [step for step in undecided if not waiting.isdisjoint(step.producers)]
    return count
