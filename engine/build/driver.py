"""Builds: runs the planned steps as their inputs become known, and records them as `dvc repro` would."""

import os
import signal
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from heapq import heappop, heappush, nsmallest
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

from engine.build.executors.base import Executor, Finished
from engine.build.machine import refuse_impossible
from engine.build.pulling import Puller, pull_all
from engine.core.errors import UserError
from engine.core.graph import LIVE, Graph, Step
from engine.dvc import dvcfile
from engine.dvc.config import check_repository
from engine.dvc.disk import Disk
from engine.dvc.dvcfile import Entry, Record
from engine.dvc.locks import build_lock
from engine.dvc.recording import Recorder
from engine.dvc.writing import replace_with
from engine.plan.decide import Action, Decision, Planner
from engine.plan.project import Project
from engine.plan.resuming import resumes
from engine.plan.takeover import take_over
from stages.process.job import PREEMPTED
from stages.process.saved import Saved


class BuildDetached(Exception):
    """Steps were submitted and go on without this build."""


class BuildPreempted(UserError):
    """Steps were preempted and have saved their state."""


_NAMED_WAITS = 3
_NO_MISTAKE = (0, 130, PREEMPTED)
"""Exit statuses of steps whose inputs changed while they ran, that were interrupted, or that were preempted."""
_SLOTS = {"cpu": "process"}


class View(Protocol):
    """Displays a running build."""

    def decided(self, decision: Decision) -> None:
        """A step was kept or restored, or is ready to start."""

    def started(self, step: Step, resumes: Saved | None) -> None:
        """A step has started; RESUMES is the checkpoint from which it goes on, if an earlier attempt has left one here."""

    def ended(self, finished: Finished) -> None:
        """A step has ended."""

    def waiting(self, first: Sequence[tuple[str, str]], undone: int) -> None:
        """FIRST are the next waiting steps, each with what it waits for; UNDONE is the number of steps that run or wait."""

    def moved(self, step: Step) -> None:
        """An input of a step changed while it ran, so its result is discarded."""


def dvc_environment() -> dict[str, str]:
    """Environment variables with which DVC's stages find this Python, even if its virtual environment is not active."""
    folder = str(Path(sys.executable).parent)
    return os.environ | {"PATH": os.pathsep.join([folder, os.environ.get("PATH", "")]), "DVC_NO_ANALYTICS": "1"}


def build(
    project: Project,
    graph: Graph,
    executor: Executor,
    view: View,
    puller: Puller | None = None,
    here: bool = True,
    share: Callable[[Sequence[Step]], None] | None = None,
) -> None:
    """Compile, resolve, and build GRAPH; raises UserError naming the failed steps, after recording the finished ones.

    HERE says whether the executor runs the steps on this machine, which must then meet what they need. SHARE gets the steps that have run
    on this machine, once everything has ended.
    """
    check_repository(project.root)
    if puller:
        # First, since restored steps need nothing of this machine.
        pull_all(project, graph, puller)
    if here:
        refuse_impossible(project, graph)
    else:
        # All of them: a step that is refused later has cost the work of those before it.
        plan = project.plan(graph)
        executor.check([graph[d.name] for d in plan.decisions if d.name in graph and d.action in (Action.RUN, Action.MAYBE)], plan)
    with build_lock(project.root), _interrupted_by_sigterm():
        project.write_compiled()
        store = project.store()
        recorder = Recorder(project.root, store.hashes)
        resolve(project, store, recorder)
        run = _Build(graph, store, Planner(graph, store, project.identities), recorder, executor, view, here, puller, share)
        try:
            run.go()
            _tell_loggers(project.root, run)
        except BaseException as error:
            # ^C, SIGTERM, a user error, a full disk: steps that have finished are still recorded.
            run.record(executor.stop(isinstance(error, KeyboardInterrupt)))
            raise
        finally:
            recorder.flush()
            store.hashes.save()


def resolve(project: Project, store: Disk, recorder: Recorder) -> None:
    """Run and record DVC's first step, unless it is up to date."""
    recorder.untie(project.graph)
    made = {dvcfile.RESOLVED: dvcfile.resolved_entry()}
    if project.plan_resolve(store).action is not Action.KEEP:
        project.resolve()
    wanted = Record(dvcfile.RESOLVE_COMMAND, {}, made)
    if store.record(dvcfile.RESOLVE) != wanted:
        recorder.note(dvcfile.RESOLVE, replace(wanted, outputs={dvcfile.RESOLVED: recorder.keep(dvcfile.RESOLVED)}))


def _tell_loggers(root: Path, run: "_Build") -> None:
    """Report metrics to the loggers of new trainings whose evaluation did not run, since its inputs came out unchanged.

    The runner reports those of the other trainings."""
    for name in [name for name in run.read if name.startswith("train-")]:
        evaluation = name.replace("train-", "evaluate-", 1)
        watched = any((root / LIVE / name).glob("*.run"))
        if watched and evaluation not in run.read and any(step.name == evaluation for step in run.graph):
            from stages.reporting import report

            report(root / LIVE, evaluation, "", run.store.metrics(run.graph[evaluation].metrics))


@dataclass
class _Build:
    graph: Graph
    store: Disk
    planner: Planner
    recorder: Recorder
    executor: Executor
    view: View
    here: bool
    puller: Puller | None = None
    share: Callable[[Sequence[Step]], None] | None = None
    unsettled: dict[str, set[str]] = field(default_factory=dict)
    """For each undecided step, its producers that are not settled yet."""
    decidable: list[int] = field(default_factory=list)
    """A heap of the steps, by place in the graph, whose producers are all settled."""
    ready: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    """For each slot, a heap of the steps that will run as soon as the slot is free."""
    read: dict[str, Mapping[str, Entry]] = field(default_factory=dict)
    """The dependencies of each started step, by path."""
    failed: list[Finished] = field(default_factory=list)
    made: list[Step] = field(default_factory=list)
    """The steps that have run on this machine, and are recorded."""

    def __post_init__(self) -> None:
        self.unsettled = {step.name: set(step.producers) for step in self.graph}
        self.places = {step.name: place for place, step in enumerate(self.graph)}
        self.decidable = [place for place, step in enumerate(self.graph) if not step.producers]

    def go(self) -> None:
        """Settle every step; after a failure, start no more unless the executor keeps going, and wait for those that run."""
        running = 0
        while True:
            if not self.failed or self.executor.keeps_going:
                while self.decidable:
                    self._decide(self.graph.steps[heappop(self.decidable)])
                running += self._start_all()
            if not running:
                break
            if self.executor.detaches:
                names = ", ".join(name for name in self.read if name in self.unsettled)
                raise BuildDetached(f"left running: {names}; engine wait, or the next engine build, takes them up")
            ended = self.executor.wait()
            running -= len(ended)
            self.record(ended)
        if self.share and self.made:
            self.share(self.made)
        if self.failed:
            raise self._failure()

    def _failure(self) -> UserError:
        """The error that names the failed steps; BuildPreempted if all of them were preempted."""
        names = ", ".join(finished.step.name for finished in self.failed)
        # Such a step has said what is wrong with data, specs or machine, and would say so again.
        refused = any(finished.status not in _NO_MISTAKE and finished.status > 0 and not finished.lost for finished in self.failed)
        hint = "finished steps are kept; run the same command to resume"
        if refused:
            hint = "mend the error above, then run the same command: finished steps are kept"
        if all(finished.status == PREEMPTED for finished in self.failed):
            return BuildPreempted(f"preempted after saving its state: {names}", hint=hint)
        return UserError(f"{names} failed", hint=hint)

    def _decide(self, step: Step) -> None:
        decision = self.planner.decide(step)
        if self.puller and self.puller.bring(step, self.planner, decision.action):
            decision = self.planner.decide(step)
        self.view.decided(decision)
        if decision.action is Action.RUN:
            heappush(self.ready[step.kind.slot], self.places[step.name])
            return
        if decision.action is Action.KEEP:
            record = self.store.record(step.name)
            assert record, f"{step.name} is kept but has no record"
            self._renew(step, record)
            if not (self.recorder.root / step.run_record).exists() and (ran := self.store.ran(step)):
                # DVC restored the result; the run cache has the record of its run.
                replace_with(self.recorder.root / step.run_record, ran.text().encode())
        elif decision.action is Action.RESTORE:
            self._restore(step, self._read_now(step))
        assert decision.action is not Action.MAYBE, f"{step.name} is undecided although all its inputs are known"
        self._settle(step)

    def _restore(self, step: Step, needs: Mapping[str, Entry]) -> None:
        """Check out the outputs of the earlier run of STEP on NEEDS for which it was decided to be restored."""
        run = self.planner.earlier_run(step, needs, self.store.record(step.name))
        assert run
        self.recorder.restore(step, run, needs)
        for path in step.outputs:
            self.store.fresh(path)
        self._renew(step, run)

    def _renew(self, step: Step, record: Record) -> None:
        """Record the result of RECORD under the current identity, if it was recorded under another text of an equivalent one."""
        needs, _ = self.planner.needs(step)
        if record.dependencies.keys() != needs.keys() or record.dependencies[step.identity].md5 != needs[step.identity].md5:
            self.planner.outcomes[step.name] = take_over(
                self.recorder, self.store, step, self._read_now(step), self.planner.identities[step.name]
            )
        elif record.command != dvcfile.command(step):
            # Only the text of its command has changed: DVC's next run must find the new one.
            self.planner.outcomes[step.name] = self.recorder.finish(step, self._read_now(step)).outputs

    def _settle(self, step: Step) -> None:
        """Mark the outputs of STEP as known; consumers with no other unsettled producer become decidable."""
        del self.unsettled[step.name]
        for name in self.graph.consumers[step.name]:
            self.unsettled[name].discard(step.name)
            if not self.unsettled[name]:
                heappush(self.decidable, self.places[name])

    def _start_all(self) -> int:
        """Start ready steps in graph order while slots are free; returns how many started."""
        started = 0
        while heaps := [heap for heap in self.ready.values() if heap and self.executor.free(self.graph.steps[heap[0]])]:
            step = self.graph.steps[heappop(min(heaps))]
            self._drop_damaged(step)
            try:
                self.read[step.name] = self._read_now(step)
            except UserError as error:
                self._fail(step, error)
                continue
            resumes_here = resumes(self.recorder.root, step, self.planner) if self.here else None
            self.executor.start(step, self.read[step.name])
            self.view.started(step, resumes_here)
            started += 1
        self.executor.launch()
        self.view.waiting(list(islice(self._waiting(), _NAMED_WAITS)), len(self.unsettled))
        return started

    def _fail(self, step: Step, error: UserError) -> None:
        """Let STEP alone fail where a failed one leaves the others to run; else raise ERROR."""
        if not self.executor.keeps_going:
            raise error
        self.failed.append(Finished(step, 1, 0.0, why=error.problems[0].what))
        self.view.ended(self.failed[-1])

    def _waiting(self) -> Iterator[tuple[str, str]]:
        """The waiting steps, each with what it waits for; first those that only wait for a free slot."""
        for slot, heap in self.ready.items():
            yield from ((self.graph.steps[place].name, f"a free {_SLOTS.get(slot, slot)}") for place in nsmallest(_NAMED_WAITS, heap))
        yield from ((name, ", ".join(sorted(producers))) for name, producers in self.unsettled.items() if producers)

    def _read_now(self, step: Step) -> dict[str, Entry]:
        """The dependencies of STEP on disk, with sizes; raises UserError if they differ from those the decision was made for."""
        needs, unknown = self.planner.needs(step)
        if unknown:
            raise UserError(f"{', '.join(unknown)} did not write {self._unread(step, needs)}, which {step.name} reads", step.origin)
        found = {path: self.store.fresh(path) for path in needs}
        moved = [path for path, entry in found.items() if entry is None or entry.md5 != needs[path].md5]
        if moved:
            raise UserError(f"{', '.join(moved)} changed while {step.name} was waiting to start", hint="run the same command again")
        return {path: entry for path, entry in found.items() if entry}

    @staticmethod
    def _unread(step: Step, needs: Mapping[str, Entry]) -> str:
        return ", ".join(item.path for item in step.inputs.values() if item.path not in needs)

    def _drop_damaged(self, step: Step) -> None:
        """Remove damaged cache objects of an earlier run of STEP: they would block the intact ones."""
        record = self.store.record(step.name)
        for entry in record.outputs.values() if record else ():
            for path in self.store.damaged(entry):
                path.unlink()

    def record(self, ended: Sequence[Finished]) -> None:
        """Record the steps that succeeded, in one write."""
        for finished in ended:
            step = finished.step
            self.view.ended(finished)
            if finished.status:
                self.failed.append(finished)
                continue
            if {path: self.store.fresh(path) for path in self.read[step.name]} != self.read[step.name]:
                # Only this step fails; the others are still recorded.
                self.view.moved(step)
                self.failed.append(finished)
                continue
            if not finished.elsewhere:
                self.planner.outcomes[step.name] = self.recorder.finish(step, self.read[step.name]).outputs
                self.made.append(step)
            elif self.planner.decide(step).action is Action.RESTORE:
                self._restore(step, self.read[step.name])
            else:
                what = f"{finished.elsewhere} has run {step.name}, but the cache lacks its outputs"
                self._fail(step, UserError(what, hint="run the same command again"))
                continue
            self._settle(step)
        self.recorder.flush()


@contextmanager
def _interrupted_by_sigterm() -> Iterator[None]:
    """Let SIGTERM end a build as cleanly as ^C does."""

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
