"""A build starts each step once, after all that it reads, as many at once as there is room for, the first of the graph first."""

import random
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from benchmarks.fabricate import Fabricator, Silence, inside, write_specs
from engine.build.driver import build
from engine.build.executors.base import Finished
from engine.cli.build_view import View
from engine.core.errors import UserError
from engine.core.graph import Step
from engine.core.workspace import Workspace
from engine.dvc.dvcfile import Entry
from engine.plan.decide import Action, Decision
from engine.plan.project import Project
from stages.process.saved import Saved
from tests.engine.plan import test_decide as toys


@dataclass
class Room(Fabricator):
    """JOBS steps at once, of those that need a device one; they end in any order."""

    jobs: int = 2
    draw: random.Random = field(default_factory=random.Random)
    fails: str = ""
    status: int = 1
    running: list[Step] = field(default_factory=list)
    done: set[str] = field(default_factory=set)
    started: list[str] = field(default_factory=list)

    def free(self, step: Step) -> bool:
        same = sum(other.kind.slot == step.kind.slot for other in self.running)
        return len(self.running) < self.jobs and (step.kind.slot == "cpu" or same < 1)

    def start(self, step: Step, read: Mapping[str, Entry]) -> None:
        assert self.free(step) and step.name not in self.started and set(step.producers) <= self.done
        self.running.append(step)
        self.started.append(step.name)

    def wait(self) -> list[Finished]:
        ended = self.draw.sample(self.running, self.draw.randint(1, len(self.running)))
        self.running = [step for step in self.running if step not in ended]
        for step in ended:
            super().start(step, {})
        self.ended.clear()
        self.done |= {step.name for step in ended}
        return [Finished(step, self.status if step.name == self.fails else 0, 0.0) for step in ended]

    def stop(self, asked: bool = True) -> list[Finished]:
        return self.wait() if self.running else []


@dataclass
class Watched(Silence):
    """Keeps what the view was told last."""

    waits: list[tuple[list[tuple[str, str]], int]] = field(default_factory=list)

    def waiting(self, first: list[tuple[str, str]], undone: int) -> None:
        self.waits.append((first, undone))


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace of 21 steps, nothing of it built: not to be changed."""
    root = tmp_path_factory.mktemp("repository") / "workspace"
    root.mkdir()
    subprocess.run([sys.executable, "-m", "dvc", "init", "--no-scm", "--quiet"], cwd=root, check=True)
    write_specs(root, 21)
    return root


@pytest.fixture
def project(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A copy of the workspace."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    shutil.copytree(repository, tmp_path / "workspace")
    return Project(Workspace.at(tmp_path / "workspace"))


def room(project: Project, **more: object) -> Room:
    return Room(project.root, inside(project), **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("jobs", [1, 3])
def test_every_step_runs_once_after_what_it_reads(project: Project, jobs: int):
    executor, view = room(project, jobs=jobs, draw=random.Random(jobs)), Watched()
    build(project, project.graph, executor, view)
    assert sorted(executor.started) == sorted(step.name for step in project.graph)
    assert {d.action for d in project.plan().decisions} == {Action.KEEP}
    assert view.waits[0][1] == len(project.graph) and view.waits[-1] == ([], 0)
    assert all(len(first) <= 3 for first, _ in view.waits)
    reasons = {reason for first, _ in view.waits for _, reason in first}
    assert "a free process" in reasons and any(reason.startswith("generate-task") for reason in reasons)
    again = room(project)
    build(project, project.graph, again, Silence())
    assert again.started == []


def test_one_after_another_they_run_in_the_order_of_the_graph(project: Project):
    executor = room(project, jobs=1)
    build(project, project.graph, executor, Silence())
    ready: set[str] = set()
    left = list(project.graph)
    for name in executor.started:
        assert name == next(step.name for step in left if set(step.producers) <= ready)
        left = [step for step in left if step.name != name]
        ready.add(name)


def test_after_a_failure_nothing_starts_and_the_next_build_goes_on(project: Project):
    executor = room(project, jobs=2, fails="generate-task-0", status=-9)
    with pytest.raises(UserError, match="generate-task-0 failed") as caught:
        build(project, project.graph, executor, Silence())
    assert caught.value.problems[0].hint == "finished steps are kept; run the same command to resume", "it was killed"
    kept = {d.name for d in project.plan().decisions if d.action is Action.KEEP}
    executor = room(project, jobs=2, fails="mix-run-00000", draw=random.Random(1), done=kept)
    with pytest.raises(UserError, match="mix-run-00000 failed") as caught:
        build(project, project.graph, executor, Silence())
    assert caught.value.problems[0].hint == "mend the error above, then run the same command: finished steps are kept"
    assert "train-run-00000" not in executor.started
    kept = {d.name for d in project.plan().decisions if d.action is Action.KEEP}
    assert kept == (executor.done - {"mix-run-00000"}) | {"resolve"}
    executor = room(project, jobs=2, done=set(kept))
    build(project, project.graph, executor, Silence())
    assert not kept & set(executor.started) and {d.action for d in project.plan().decisions} == {Action.KEEP}


def test_the_view_names_what_runs_and_what_the_next_steps_wait_for(project: Project):
    view = View(20, live=False)
    view.started(project.graph["generate-task-0"])
    view.waiting([("split-task-0", "generate-task-0"), ("train-run-00000", "a free device")], 20)
    bar, running, waiting = view.rows()
    assert bar.endswith(" 0 of 20") and running == "  generate-task-0  1 s"
    assert waiting == "split-task-0 waits for generate-task-0 · train-run-00000 waits for a free device · 17 more waiting"
    view.ended(Finished(project.graph["generate-task-0"], 0, 1.0))
    assert view.rows()[-1].startswith("split-task-0 is starting · train-run-00000 waits for a free device")
    view.waiting([], 1)
    assert len(view.rows()) == 1


def test_the_view_says_how_long_it_will_take_and_what_each_step_says(project: Project, capsys):
    first, second, third = (project.graph[f"generate-task-{number}"] for number in range(3))
    expected = {first.name: (60.0, 2), second.name: (3600.0, 2), third.name: (None, 1)}
    view = View(4, live=False, expected=expected, said=lambda name, since: "90/200 rows" if name == first.name else "")
    assert view.left == "about 1 h 0 min left + 1 never timed here", "two at once, but one of them takes an hour"
    view.started(first)
    assert view.rows()[1] == f"  {first.name}  1 s  90/200 rows"
    view.ended(Finished(first, 0, 50.0))
    assert "done generate-task-0 50 s · 1 of 4 · about 1 h 0 min left" in " ".join(capsys.readouterr().err.split())
    view.decided(Decision(second.name, second.kind_name, Action.RESTORE))
    assert view.left == "1 never timed here" and view.rows()[0].startswith("█" * 12 + "░")
    view.ended(Finished(third, 0, 1.0))
    assert not view.left
    expected = {first.name: (60.0, 4), second.name: (100.0, 1), third.name: (120.0, 1)}
    said = {first.name: "train: 30/90 steps, loss 1.5000, 1:05:00 left", third.name: "read c: 3/4 rows"}
    view = View(3, live=False, expected=expected, said=lambda name, since: said.get(name, ""))
    assert view.left == "about 3 min 40 s left", "trainings take turns on a device"
    view.started(first)
    assert view.left == "about 1 h 5 min left", "what a running step says counts, not what it took last time"
    view.started(third, Saved(3, 4, 48.0, ()))
    assert "run generate-task-2" in (shown := " ".join(capsys.readouterr().err.split())) and shown.endswith("resumes at step 3 of 4")
    view.ended(Finished(third, 0, 20.0))
    assert "done generate-task-2 1 min 8 s, 48 s of it before it was stopped" in " ".join(capsys.readouterr().err.split())


def test_an_interrupted_training_is_not_said_to_be_lost(capsys):
    view = View(1, live=False)
    view.ended(Finished(toys.step("train-x"), 130, 1.0))
    said = " ".join(capsys.readouterr().err.split())
    assert "stopped train-x not finished; a training resumes from its last checkpoint" in said and view.done == 0


def test_the_view_says_where_a_step_ran_and_why_it_failed_without_a_log(capsys):
    step = toys.step("train-x")
    view = View(2, live=False, said=lambda name, since: "running on n2")
    view.started(step)
    assert view.rows()[1] == "  train-x  1 s  running on n2"
    view.ended(Finished(step, 0, 5.0, elsewhere="n2"))
    view.ended(Finished(step, 1, 5.0, elsewhere="n2"))
    view.ended(Finished(step, 1, 0.0, why="slurm refuses the job: invalid account"))
    said = " ".join(capsys.readouterr().err.split())
    assert "done train-x 5 s on n2 · 1 of 2 failed train-x exit status 1 on n2" in said
    assert said.endswith("failed train-x slurm refuses the job: invalid account")
