"""What a build on a cluster makes of jobs that are refused, held back, preempted or gone: a step's failure is never another step's."""

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from engine.build.executors.base import Finished
from engine.build.executors.cluster import Full, JobEnd, Needs, Unreachable
from engine.build.executors.distributed import Distributed, _Sealed
from engine.core.errors import UserError
from engine.dvc.dvcfile import Entry
from engine.jobs.sealed import Ended, SealedJob, ended_path
from engine.jobs.worker import StoreAddress, saved_in, saved_path
from tests.engine.plan import test_decide as toys


@dataclass
class Memory:
    """A store that keeps texts."""

    kept: dict[str, str] = field(default_factory=dict)
    patience: float = 600.0
    remote: Any = field(default_factory=lambda: SimpleNamespace(refused=[]))

    def texts(self, names: Iterable[str]) -> dict[str, str]:
        return {name: self.kept[name] for name in names if name in self.kept}

    def remove(self, names: Iterable[str]) -> None:
        for name in list(names):
            self.kept.pop(name, None)


@dataclass
class Scheduler:
    """Takes ROOM jobs, refuses those that are named; keeps what was submitted and cancelled."""

    room: int = 99
    refused: tuple[str, ...] = ()
    ends: Mapping[str, JobEnd] = field(default_factory=dict)
    known: dict[str, str] = field(default_factory=dict)
    submitted: list[list[str]] = field(default_factory=list)
    cancelled: list[str] = field(default_factory=list)
    commands: dict[str, Sequence[str]] = field(default_factory=dict)
    away: bool = False
    name: str = "toy"

    def refusal(self, needs: Needs) -> str | None:
        return None

    def submit(self, label: str, command: Sequence[str], needs: Needs) -> str:
        return self.submit_many([(label, command)], needs)[0]

    def submit_many(self, jobs: Sequence[tuple[str, Sequence[str]]], needs: Needs) -> list[str]:
        if self.away:
            raise Unreachable("gone")
        if any(label in self.refused for label, _ in jobs):
            raise UserError("invalid account")
        if len(self.known) + len(jobs) > self.room:
            raise Full("job submit limit")
        ids = [f"{len(self.submitted)}.{label}" for label, _ in jobs]
        self.submitted.append([label for label, _ in jobs])
        self.known |= dict.fromkeys(ids, "queued")
        self.commands |= {number: command for number, (_, command) in zip(ids, jobs, strict=True)}
        return ids

    def states(self, ids: Iterable[str]) -> dict[str, str]:
        return {number: self.known[number] for number in ids if number in self.known}

    def explain(self, id: str) -> JobEnd | None:
        return self.ends.get(id.partition(".")[2])

    def cancel(self, ids: Iterable[str]) -> None:
        self.cancelled += ids
        for number in list(ids):
            self.known.pop(number, None)

    def close(self) -> None:
        pass


@dataclass
class Bench:
    """A build's executor on the toy cluster."""

    cluster: Scheduler
    executor: Distributed
    said: list[str]
    store: Memory

    def gather(self, *names: str, cores: int = 1) -> None:
        for name in names:
            step = toys.step(name)
            job = SealedJob(name, step.kind_name, "", "{}", "{}", {"x": Entry(name)}, step.outputs)
            self.executor._gathered.append(_Sealed(step, job, Needs(cores=cores)))

    def end(self, status: int) -> None:
        """Every job ends with STATUS, as its worker tells the store."""
        for running in self.executor._running:
            self.cluster.known.pop(running.submitted.id, None)
            self.store.kept[ended_path(running.job.key, running.submitted.attempt)] = Ended(status, "n1", 1.0, "").text()

    def saves(self, names: Mapping[str, str]) -> None:
        for running in self.executor._running:
            self.store.kept[saved_path(running.job.key)] = json.dumps(names)


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setattr("engine.build.executors.distributed._POLL_SECONDS", 0.001)
    monkeypatch.setattr("engine.build.executors.distributed._FULL_SECONDS", 0.001)
    cluster, store, said = Scheduler(), Memory(), []
    recorder: Any = SimpleNamespace(cache=tmp_path)
    kept: Any = store
    executor = Distributed(tmp_path, cluster, StoreAddress("/s"), kept, recorder, 50, lambda *_: Needs(), said.append, lost_after=0.0)
    return Bench(cluster, executor, said, store)


def test_a_job_that_the_scheduler_refuses_is_its_steps_failure_and_the_others_are_submitted(bench: Bench):
    bench.cluster.refused = ("ab-split-b",)
    bench.gather("split-a", "split-b", "split-c", "split-d")
    bench.executor.launch()
    assert [name for names in bench.cluster.submitted for name in names] == ["ab-split-a", "ab-split-c", "ab-split-d"]
    (failed,) = bench.executor.wait()
    assert (failed.step.name, failed.status, failed.lost) == ("split-b", 1, False)
    assert failed.why == "toy refuses the job: invalid account"
    assert not bench.cluster.cancelled


def test_jobs_for_which_there_is_no_room_wait_until_others_have_ended(bench: Bench):
    bench.cluster.room = 2
    bench.gather("split-a", "split-b", "split-c", "split-d", "split-e")
    bench.executor.launch()
    assert bench.cluster.submitted == [["ab-split-a", "ab-split-b"]]
    bench.end(1)
    assert {finished.step.name for finished in bench.executor.wait()} == {"split-a", "split-b"}
    bench.executor.launch()
    assert [name for names in bench.cluster.submitted[1:] for name in names] == ["ab-split-c", "ab-split-d"]
    assert [text for text in bench.said if "takes no further job" in text], bench.said


def test_where_nothing_of_the_build_runs_a_lack_of_room_fails_the_steps_in_the_end(bench: Bench):
    bench.cluster.room, bench.store.patience = 0, 0.05
    bench.gather("split-a")
    bench.executor.launch()
    (failed,) = bench.executor.wait()
    assert failed.why == "toy refuses the job: job submit limit"


def test_an_error_that_ends_the_build_leaves_its_jobs_and_an_interruption_cancels_them(bench: Bench):
    for asked in (False, True):
        bench.gather("split-a")
        bench.executor.launch()
        bench.executor.stop(asked)
        assert bool(bench.cluster.cancelled) == asked
    assert bench.said == ["left in the cluster: split-a; the same command takes them up"]


def test_jobs_that_end_with_the_build_are_cancelled_whatever_ends_it(bench: Bench):
    vars(bench.cluster)["ends_with_build"] = True
    bench.gather("split-a")
    bench.executor.launch()
    bench.executor.stop(asked=False)
    assert len(bench.cluster.cancelled) == 1 and not bench.said


def test_a_scheduler_that_stays_away_ends_the_build_and_fails_no_step(bench: Bench):
    bench.cluster.away, bench.store.patience = True, 0.01
    bench.gather("split-a")
    with pytest.raises(UserError, match="toy has not answered"):
        bench.executor.launch()
    assert not bench.executor._failed


def preempt(bench: Bench) -> list[Finished]:
    """Preempt what runs; returns what the build is told before the step is submitted again."""
    bench.executor.launch()
    bench.end(75)
    return bench.executor._ended()


def test_a_preemption_after_which_something_new_is_saved_is_not_counted(bench: Bench):
    bench.gather("train-a")
    for number in range(12):
        bench.executor.launch()
        bench.saves({f"checkpoints/step-{number:08}.safetensors": "0" * 32})
        assert preempt(bench) == []
    for _ in range(4):
        # The same step, whose file differs in the seconds that it took.
        bench.executor.launch()
        bench.saves({"checkpoints/step-00000011.safetensors": "1" * 32})
        assert preempt(bench) == []
    (failed,) = preempt(bench)
    assert failed.lost and failed.why == "n1 preempted it; given up after 5 attempts"
    assert len(bench.cluster.submitted) == 17


def test_how_far_a_job_has_come_is_its_training_step_or_what_it_has_saved():
    steps = json.dumps({f"checkpoints/step-{number:08}.safetensors": "0" * 32 for number in (9, 120)})
    assert saved_in(steps) == "00000120" == saved_in(steps, "00000020")
    assert saved_in(steps, "00000130") == "00000130", "it was restored from nothing, and has not come further"
    assert saved_in("", "00000130") == "00000130" and saved_in("no list") == ""
    answers = json.dumps({"answers.jsonl": "0" * 32})
    assert saved_in(answers) != saved_in(answers.replace("0", "1")) and saved_in(answers) == saved_in(answers)
    assert saved_in(steps, saved_in(answers)) == "00000120"


def test_a_job_that_cannot_begin_fails_at_once_and_says_what_to_do(bench: Bench):
    bench.executor.lost_after = 600.0
    bench.cluster.ends = {
        "ab-split-a": JobEnd("exit code 127", 127, "/bin/sh: 4: exec: enginee: not found\n"),
        "ab-split-b": JobEnd("a worker failed", None, "ModuleNotFoundError: No module named 'engine'"),
    }
    bench.gather("split-a", "split-b")
    bench.executor.launch()
    bench.cluster.known.clear()
    first, second = bench.executor.wait()
    assert first.why.startswith("its job could not begin: exit code 127: /bin/sh: 4: exec: enginee: not found (set command in")
    assert "No module named 'engine' (install adapterbuild" in second.why
    assert len(bench.cluster.submitted) == 1 and not first.lost


@pytest.mark.parametrize("status", [0, None])
def test_an_import_error_on_the_way_says_nothing_of_how_a_job_ended(bench: Bench, status: int | None):
    bench.executor.lost_after = 600.0
    bench.cluster.ends = {"ab-split-a": JobEnd("ended", status, "warning: ImportError: no flash_attn\nModuleNotFoundError: x\ndone\n")}
    bench.gather("split-a")
    bench.executor.launch()
    bench.cluster.known.clear()
    assert bench.executor._ended() == [] and bench.executor._running
    bench.end(3)
    (finished,) = bench.executor._ended()
    assert finished.status == 3


def test_a_job_that_is_gone_is_told_with_what_the_scheduler_knows(bench: Bench):
    said = "error: the store /s is not a folder on n2\n  hint: mount it there\n"
    bench.cluster.ends = {"ab-split-a": JobEnd("exit code 1 on n2", 1, said), "ab-split-b": JobEnd("OUT_OF_MEMORY")}
    bench.gather("split-a", "split-b")
    bench.executor.launch()
    bench.cluster.known.clear()
    bench.executor._ended()
    time.sleep(0.01)
    assert bench.executor._ended() == []
    assert [text.partition("; submitted")[0] for text in bench.said] == [
        "split-a: its job ended without a result: exit code 1 on n2: error: the store /s is not a folder on n2",
        "split-b: its job ended without a result: OUT_OF_MEMORY",
    ]


@pytest.mark.parametrize(
    ("status", "known", "taken"), [(75, True, True), (75, False, False), (0, False, True), (1, False, False), (None, True, True)]
)
def test_a_build_takes_up_what_the_scheduler_has_requeued(bench: Bench, status: int | None, known: bool, taken: bool):
    bench.gather("train-a")
    bench.executor.launch()
    (running,) = bench.executor._running
    if status is not None:
        bench.end(status)
    bench.cluster.known = {running.submitted.id: "queued"} if known else {}
    assert (bench.executor._earlier(running.job) == running.submitted) == taken
    if status == 75 and known:
        bench.executor._running = [running]
        assert bench.executor._ended() == [] and len(bench.cluster.submitted) == 1, "its old end is not its end"


def test_what_jobs_do_is_told_by_step(bench: Bench):
    bench.gather("split-a", "split-b")
    bench.executor.launch()
    bench.cluster.known["0.ab-split-b"] = "running on n2"
    bench.executor._ended()
    assert [bench.executor.does(name, 0.0) for name in ("split-a", "split-b", "split-c")] == ["queued", "running on n2", ""]
