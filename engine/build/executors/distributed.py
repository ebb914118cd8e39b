"""Runs steps as sealed jobs on a cluster: content and results pass through the store, and the cluster only runs `engine work`."""

import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TypeVar

from engine.build.executors.base import Finished
from engine.build.executors.cluster import Allocations, Arrays, Cluster, EndsWithBuild, Explains, Full, JobEnd, Needs, Unreachable
from engine.build.settings import ExecutorSettings
from engine.core.errors import Problem, UserError
from engine.core.graph import ARTIFACTS, Graph, Step
from engine.dvc.config import default_remote
from engine.dvc.dvcfile import TEMPORARY, Entry
from engine.dvc.recording import Recorder
from engine.dvc.remote import Remote
from engine.dvc.run_records import folder_of
from engine.dvc.sharing import sharing
from engine.dvc.writing import replace_with
from engine.jobs.sealed import Ended, SealedJob, attempt_of, ended, ended_path, parsed_runs, seal
from engine.jobs.store import Store
from engine.jobs.worker import StoreAddress, saved_in, saved_path
from engine.plan.decide import Plan
from engine.plan.project import Project
from engine.plan.training_inputs import estimate_of
from stages.process.job import PREEMPTED

T = TypeVar("T")

_ATTEMPTS = 5
"""Attempts at one step, in a row, that nodes lost or preempted before it has saved anything new; after that it counts as failed."""
_POLL_SECONDS = 0.5
_SLOWEST_POLL = 5.0
_FULL_SECONDS = 5.0
"""Pause between attempts to submit to a scheduler that takes no further job."""
_CANNOT_START = (126, 127)
"""Exit statuses of a shell that cannot run a command."""
_CANNOT_IMPORT = ("ModuleNotFoundError", "ImportError")
_GATHER_SECONDS = 5.0
"""How long a job waits for others that can be submitted with it, while what they read is sent to the store."""
_LIBRARIES = 2_000_000_000
"""Bytes of main memory of a training's process before the model comes, on a machine that has the libraries in no cache."""


@dataclass(frozen=True)
class Submitted:
    """An attempt that the scheduler has, as it is noted in the workspace for a build that is started again."""

    executor: str
    id: str
    attempt: str
    number: int
    """Counts the attempts since the step has saved something new."""
    began: float
    """Seconds since the epoch."""
    saved: str = ""
    """How far the step had come when it was submitted, as `saved_in` says it."""


@dataclass
class _Running:
    step: Step
    job: SealedJob
    needs: Needs
    submitted: Submitted
    gone: float | None = None
    """When the scheduler was first seen not to know the job."""
    end: JobEnd | None = None
    """What the scheduler says of its end."""


@dataclass(frozen=True)
class _Sealed:
    """A job that is in the store, and not submitted yet."""

    step: Step
    job: SealedJob
    needs: Needs
    number: int = 1
    """The attempt at the step."""
    saved: str = ""
    """See Submitted."""


class _Away(UserError):
    """The scheduler has not answered for so long that the build ends; the jobs go on."""


@dataclass
class Distributed:
    """At most JOBS jobs of a cluster at once."""

    root: Path
    cluster: Cluster
    address: StoreAddress
    store: Store
    recorder: Recorder
    jobs: int
    needs: Callable[[Step, Plan | None], Needs]
    """What a step needs; given a plan, without what is only an upper bound before the steps that it reads have run."""
    say: Callable[[str], None]
    command: Sequence[str] = ("engine",)
    """How the nodes start this program."""
    key: str = ""
    """The file, on each node, of the SSH key that signs what workers send; empty: nothing is signed."""
    detaches: bool = False
    """Whether jobs go on when the build stops."""
    keeps_going: bool = True
    lost_after: float = ExecutorSettings.lost_after
    """Seconds after which a job that the scheduler no longer knows, and whose end is not in the store, counts as lost."""
    _running: list[_Running] = field(default_factory=list)
    _gathered: list[_Sealed] = field(default_factory=list)
    _gathering: float = 0.0
    """When the first of those was gathered."""
    _failed: list[Finished] = field(default_factory=list)
    """Steps that the cluster has refused, until the build is told."""
    _full: float | None = None
    """Since when the scheduler has taken no job although none of this build runs there."""
    _next_try: float = 0.0
    """When to submit again."""
    _states: Mapping[str, str] = field(default_factory=dict)
    """What each job did last, by the step's name."""
    _refused: dict[tuple[Needs, int], str | None] = field(default_factory=dict)
    _told: bool = False
    _told_full: bool = False

    @cached_property
    def _notes(self) -> Path:
        folder = self.root / TEMPORARY / "adapterbuild" / "jobs"
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def free(self, step: Step) -> bool:
        """Whether fewer than JOBS jobs are in the cluster."""
        return len(self._running) + len(self._gathered) < self.jobs

    def start(self, step: Step, read: Mapping[str, Entry]) -> None:
        """Send what STEP reads and its job to the store, to be submitted by `launch`; or take up the job that an earlier build has
        submitted."""
        job, needs = SealedJob.of(step, self.root, read), self.needs(step, None)
        if earlier := self._earlier(job):
            self._running.append(_Running(step, job, needs, earlier))
            return
        if problem := self._refusal(step, needs, job.nodes):
            # What it needs was not known before.
            self._fail(step, problem)
            return
        for path in job.inputs:
            if not Path(path).is_absolute():
                # Data that no step made, and folders inside of artifacts, are in no cache yet.
                self.recorder.keep(path, link=False)
        seal(job, self.store)
        self._gathering = self._gathering if self._gathered else time.monotonic()
        self._gathered.append(_Sealed(step, job, needs))
        if time.monotonic() > max(self._gathering + _GATHER_SECONDS, self._next_try):
            self.launch()

    def launch(self) -> None:
        """Submit the jobs that were gathered, those with the same needs together where the cluster can do that.

        A job that the cluster refuses is its step's failure; where it takes no further job now, the rest waits for `wait` to try again.
        """
        most = len(self._gathered)
        while self._gathered:
            alike = self._alike()[:most]
            try:
                submitted = self._submit(alike)
            except _Away:
                raise
            except (Full, UserError) as error:
                if len(alike) > 1:
                    # One of them may be at fault, or a limit may have room for some.
                    most = len(alike) // 2
                    continue
                if isinstance(error, Full) and self._may_wait(error):
                    return
                self._gathered.remove(alike[0])
                problem = error.problems[0] if isinstance(error, UserError) else Problem(str(error))
                self._fail(alike[0].step, Problem(f"{self.cluster.name} refuses the job: {problem.what}", hint=problem.hint))
                continue
            self._full, self._told_full = None, False
            taken = alike[: len(submitted)]
            self._running += [_Running(each.step, each.job, each.needs, one) for each, one in zip(taken, submitted, strict=True)]
            self._gathered = [each for each in self._gathered if each not in taken]

    def _alike(self) -> list[_Sealed]:
        """The gathered jobs that can be submitted together with the first."""
        first = self._gathered[0]
        if not isinstance(self.cluster, Arrays) or first.job.nodes > 1:
            return [first]
        return [each for each in self._gathered if each.needs == first.needs and each.job.nodes == 1]

    def _may_wait(self, error: Full) -> bool:
        """Whether to submit again later: when jobs of this build have ended; if it has none, as long as the store would be waited for."""
        now = time.monotonic()
        if not self._told_full:
            self._told_full = True
            self.say(f"{self.cluster.name} takes no further job now: {error}; {len(self._gathered)} steps wait")
        self._next_try = now + _FULL_SECONDS
        if self._running:
            self._full = None
            return True
        self._full = now if self._full is None else self._full
        return now - self._full < self.store.patience

    def _fail(self, step: Step, problem: Problem) -> None:
        """Let `wait` tell that STEP cannot run."""
        self._failed.append(Finished(step, 1, 0.0, why=f"{problem.what}{f' ({problem.hint})' if problem.hint else ''}"))

    def check(self, steps: Sequence[Step], plan: Plan) -> None:
        """Raise UserError for those of STEPS whose needs no node can meet."""
        found: dict[str, Problem] = {}
        for step in steps:
            nodes = getattr(step.parameters, "nodes", 1)
            if problem := self._refusal(step, self.needs(step, plan), nodes):
                # Steps of one kind are refused for one reason: the first of them is named.
                found.setdefault(problem.what.partition(" ")[2], problem)
        if found:
            raise UserError(found.values())

    def does(self, name: str, since: float) -> str:
        """What the job of the step NAME did when it was asked for last, such as `queued` or `running on n2`."""
        return self._states.get(name, "")

    def _refusal(self, step: Step, needs: Needs, nodes: int) -> Problem | None:
        """Why the cluster can never run STEP: it has no NODES nodes that meet its NEEDS."""
        cluster = self.cluster
        if nodes == 1:
            ask = partial(cluster.refusal, needs)
        elif isinstance(cluster, Allocations):
            ask = partial(cluster.refusal, needs, nodes)
        else:
            hint = "set resources.nodes = 1 and resources.devices, or run the build inside of an allocation: --on local"
            return Problem(f"{step.name} trains on {nodes} nodes, and a job of {cluster.name} has one", step.origin, hint)
        if (needs, nodes) not in self._refused:
            self._refused[needs, nodes] = self._patiently(ask)
        if reason := self._refused[needs, nodes]:
            hint = "change needs in [tool.adapterbuild.executor] of pyproject.toml, or build it here: --on local"
            return Problem(f"{step.name} cannot run on {self.cluster.name}: {reason}", step.origin, hint)
        return None

    def _earlier(self, job: SealedJob) -> Submitted | None:
        """The attempt of an earlier build, if it has succeeded, or if the scheduler still has it."""
        note = self._note(job)
        if not note.exists():
            return None
        try:
            found = Submitted(**json.loads(note.read_text("utf-8")))
        except (ValueError, TypeError):
            return None
        if found.executor != self.cluster.name:
            return None
        # The scheduler first: a job that ends in between has written its end by then.
        known = found.id in self._patiently(lambda: self.cluster.states([found.id]))
        texts = self.store.texts([ended_path(job.key, found.attempt)])
        end = ended("".join(texts.values()))
        if end is None or end.status == PREEMPTED:
            # A scheduler that requeues what it has preempted would run a job that is submitted anew twice. Its old end is not its end.
            if known and end:
                self.store.remove(texts)
            return found if known else None
        # A failure is tried anew; a success only has to be fetched.
        return found if end.status == 0 else None

    def _submit(self, alike: Sequence[_Sealed]) -> list[Submitted]:
        """Submit the first of jobs that are ALIKE in their needs, as many as the cluster takes at once; returns their attempts."""
        began, needs = time.time(), alike[0].needs
        attempts = [attempt_of(each.job, each.number, f"{began} {os.getpid()}") for each in alike]
        jobs = [(f"ab-{each.step.name}", self._command(each.job, attempt)) for each, attempt in zip(alike, attempts, strict=True)]
        cluster = self.cluster
        if isinstance(cluster, Arrays) and len(jobs) > 1:
            ids = self._patiently(lambda: cluster.submit_many(jobs, needs))
        elif isinstance(cluster, Allocations) and (nodes := alike[0].job.nodes) > 1:
            ids = [self._patiently(lambda: cluster.submit_on(*jobs[0], needs, nodes))]
        else:
            ids = [self._patiently(lambda: cluster.submit(*jobs[0], needs))]
        found = []
        for each, attempt, number_there in zip(alike, attempts, ids, strict=False):
            found.append(Submitted(cluster.name, number_there, attempt, each.number, began, each.saved))
            replace_with(self._note(each.job), json.dumps(asdict(found[-1])).encode())
        return found

    def _command(self, job: SealedJob, attempt: str) -> list[str]:
        options = [part for name, value in self.address.options.items() for part in ("--store-option", f"{name}={value}")]
        options += ["--key", self.key] if self.key else []
        return [*self.command, "work", job.key, "--store", self.address.url, *options, "--attempt", attempt]

    def _note(self, job: SealedJob) -> Path:
        return self._notes / f"{job.key}.json"

    def _patiently(self, request: Callable[[], T]) -> T:
        """The answer of the scheduler, which may be away for a while."""
        began = time.monotonic()
        while True:
            try:
                answer = request()
            except Unreachable as error:
                if time.monotonic() - began > self.store.patience:
                    what = f"{self.cluster.name} has not answered for {self.store.patience:.0f} s: {error}"
                    raise _Away(what, hint="start the same command again when it does: it takes up the jobs that run") from None
                if not self._told:
                    self.say(f"{self.cluster.name} does not answer: {error}; waiting")
                    self._told = True
                time.sleep(_POLL_SECONDS)
            else:
                self._told = False
                return answer

    def wait(self) -> list[Finished]:
        """Wait until at least one job has ended; returns all that have, with their outputs in the cache."""
        pause = _POLL_SECONDS
        while True:
            if self._gathered and time.monotonic() >= self._next_try:
                self.launch()
            found, self._failed = [*self._failed, *self._ended()], []
            if found:
                # There is room for another job.
                self._next_try = 0.0
                return found
            time.sleep(pause)
            pause = min(1.2 * pause, _SLOWEST_POLL)

    def _ended(self) -> list[Finished]:
        names = {ended_path(each.job.key, each.submitted.attempt): each for each in self._running}
        ends = {name: end for name, text in self.store.texts(names).items() if (end := ended(text))}
        found = [finished for name, end in ends.items() if (finished := self._finished(names[name], end))]
        # What has ended is fetched, or submitted again under another name.
        self.store.remove(ends)
        open_ones = [each for name, each in names.items() if name not in ends]
        states = self._patiently(lambda: self.cluster.states([each.submitted.id for each in open_ones])) if open_ones else {}
        self._states = {each.step.name: states[each.submitted.id] for each in open_ones if each.submitted.id in states}
        for each in open_ones:
            if each.submitted.id in states:
                each.gone, each.end = None, None
            elif (lost := self._gone(each)) is not None:
                found.append(lost)
        gone = {*(finished.step.name for finished in found), *(each.step.name for each in self._gathered)}
        self._running = [each for each in self._running if each.step.name not in gone]
        return found

    def _gone(self, running: _Running) -> Finished | None:
        """What the build is told of a job that the scheduler no longer knows, and whose end is not in the store; None if nothing yet."""
        now = time.monotonic()
        if running.gone is None:
            running.gone = now
            if isinstance(cluster := self.cluster, Explains):
                # At once: schedulers forget jobs soon.
                running.end = self._patiently(lambda: cluster.explain(running.submitted.id))
        end = running.end
        if end is not None and (hint := _hopeless(end)):
            # It may have ended between the look into the store and that at the scheduler.
            path = ended_path(running.job.key, running.submitted.attempt)
            if said := ended("".join(self.store.texts([path]).values())):
                self.store.remove([path])
                return self._finished(running, said)
            return self._lost(running, f"its job could not begin: {_told(end)} ({hint})", lost=False)
        if now - running.gone <= self.lost_after:
            return None
        return self._again(running, f"its job ended without a result: {_told(end)}" if end else "its node was lost")

    def _finished(self, running: _Running, end: Ended) -> Finished | None:
        """What the build is told of a job that has ended; None if it was submitted again."""
        step, job = running.step, running.job
        if end.status == PREEMPTED:
            return self._again(running, f"{end.host} preempted it")
        if end.status == 0 and not self._fetch(job):
            return self._again(running, f"{end.host} has run it, but the store lacks its outputs")
        log = self.root / TEMPORARY / "adapterbuild" / f"{step.name}.log"
        replace_with(log, end.log.encode())
        if end.status == 0:
            # That of a failed step stays: it names the job for `engine work`.
            self._note(job).unlink(missing_ok=True)
        return Finished(step, end.status, end.seconds, log, end.host)

    def _fetch(self, job: SealedJob) -> bool:
        """Bring the outputs and records of a run of JOB into the cache; returns whether the store has them whole."""
        there = self.store.pull_runs(job.run_folder)
        while self.store.remote.refused:
            self.say(f"{job.step}: a run in the store does not count: {self.store.remote.refused.pop()}")
        if not there:
            return False
        for run in parsed_runs(self.recorder.cache / job.run_folder):
            if set(run.outputs) != set(job.outputs):
                continue
            artifact, statement = (run.outputs[f"{ARTIFACTS}/{job.step}{end}"] for end in ("", ".provenance.json"))
            if self.store.pull([artifact.md5, statement.md5]):
                self.store.pull_run_records(folder_of(job.step, statement.md5))
                return True
        return False

    def _again(self, running: _Running, why: str) -> Finished | None:
        """Let the step be submitted again; the end of it, as failed, if it has been tried often enough since it has saved anything new."""
        before = running.submitted
        # Schedulers requeue what they have preempted: one attempt is enough.
        self._cancel([running])
        saved = saved_in("".join(self.store.texts([saved_path(running.job.key)]).values()), before.saved)
        number = before.number + 1 if saved == before.saved else 1
        if number > _ATTEMPTS:
            return self._lost(running, f"{why}; given up after {before.number} attempts")
        self.say(f"{running.step.name}: {why}; submitted again, from its last checkpoint in the store")
        self._gathered.append(_Sealed(running.step, running.job, running.needs, number, saved))
        return None

    @staticmethod
    def _lost(running: _Running, why: str, lost: bool = True) -> Finished:
        return Finished(running.step, 1, time.time() - running.submitted.began, lost=lost, why=why)

    def stop(self, asked: bool = True) -> list[Finished]:
        """Cancel all jobs, unless the build is to be detached from them, or an error ends it; checkpoints stay in the store."""
        if self._running and not self.detaches:
            if asked or isinstance(self.cluster, EndsWithBuild):
                self._cancel(self._running)
            else:
                names = ", ".join(each.step.name for each in self._running)
                self.say(f"left in the cluster: {names}; the same command takes them up")
        self._running, self._gathered = [], []
        return []

    def _cancel(self, running: Sequence[_Running]) -> None:
        ids = [each.submitted.id for each in running]
        try:
            self._patiently(lambda: self.cluster.cancel(ids))
        except UserError as error:
            # Why the build stops, or a step is submitted again, matters more.
            self.say(f"{self.cluster.name} has not cancelled {', '.join(ids)}: {error.problems[0].what}")

    def __enter__(self) -> "Distributed":
        return self

    def __exit__(self, *_: object) -> None:
        self.cluster.close()


def _told(end: JobEnd) -> str:
    """How a job has ended, with the last line that it has written."""
    lines = end.said.split("\n") if end.said else []
    last = next((line.strip() for line in reversed(lines) if line.strip()), "")
    # The error of a worker has its hint below it.
    wrong = [line.strip() for line in lines if line.startswith("error:")]
    return f"{end.why}: {(wrong or [last])[-1]}" if last else end.why


def _hopeless(end: JobEnd) -> str | None:
    """What to do about a job that would end so on every node; None if another one may do better."""
    if end.status in _CANNOT_START:
        return "set command in [tool.adapterbuild.executor] to the program as the nodes find it, with its whole path"
    # Python ends with it; what a step has logged on its way, or before it succeeded, says nothing.
    last = end.said.strip().rpartition("\n")[2]
    if end.status != 0 and last.startswith(_CANNOT_IMPORT):
        return "install adapterbuild, in this version, in the environment in which the nodes start it"
    return None


def known_needs(step: Step, project: Project, graph: Graph, devices: int = 0, plan: Plan | None = None) -> Needs:
    """What the spec and the estimate say that STEP needs where each of its processes gets a GPU (DEVICES > 0), or none does.

    Cores are threads; a training without GPUs needs the memory of its estimate for each of its processes. Given a PLAN, an estimate that
    is only an upper bound before the steps that it reads have run does not count.
    """
    from stages import train

    processes, memory = 1, 0
    if isinstance(step.parameters, train.Parameters):
        processes = step.parameters.devices
        # All that the estimate reads: planning the whole graph for each step would be quadratic.
        above = graph.needed_for([step.name])
        estimate = None if devices else estimate_of(step, above, plan or project.plan(above), project.store())
        if plan and estimate and not (estimate.matter.exact_model and estimate.matter.measured_length):
            estimate = None
        memory = processes * (estimate.memory.total + _LIBRARIES) if estimate else 0
    return Needs(cores=processes * (getattr(step.parameters, "threads", None) or 1), memory=memory)


def distributed(
    project: Project,
    graph: Graph,
    cluster: Cluster,
    remote: Remote,
    settings: ExecutorSettings,
    jobs: int,
    say: Callable[[str], None],
    detach: bool = False,
) -> Distributed:
    """The executor of a build of GRAPH on CLUSTER, with DVC's default remote as the store; raises UserError if there is none."""
    found = default_remote(project.root)
    if "url" not in found:
        hint = "for example: dvc remote add --default store /shared/folder (or s3://bucket/path)"
        raise UserError("jobs of a cluster need a store, and this workspace has no default DVC remote", hint=hint)
    store = Store(remote, say)
    recorder = Recorder(project.root, project.hashes)

    def needs(step: Step, plan: Plan | None) -> Needs:
        devices = settings.needs_of(step.kind_name, Needs()).devices
        needs = settings.needs_of(step.kind_name, known_needs(step, project, graph, devices, plan))
        # The spec says how many processes there are; the settings, that each has a GPU.
        return replace(needs, devices=max(devices, getattr(step.parameters, "devices", 1)) if devices else 0)

    return Distributed(
        project.root,
        cluster,
        StoreAddress.of(found),
        store,
        recorder,
        jobs,
        needs,
        say,
        settings.command,
        signer.key if (signer := sharing(project.root).signer()) else "",
        detach,
        lost_after=settings.lost_after,
    )
