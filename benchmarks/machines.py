"""Builds on many machines: what the build adds to a step on a cluster, a second clone's build, and a large cluster with failing nodes.

    python benchmarks/machines.py [--quick] [--json]

`overhead`: the real build, store and jobs; the cluster is one that has run each job when it is submitted, whose own time is left out.
`clone`: what a build on a cluster has left in the store, restored in a second workspace, beside `dvc pull` of the same results.
`simulation`: the real build and planner with an executor in simulated time: steps of hours on nodes that fail.
"""

import sys

if __name__ == "__main__":
    # Run as a script: this folder itself must not be searched.
    sys.path[0] = __file__.rpartition("/benchmarks/")[0] or "."

import argparse
import heapq
import json
import os
import random
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.common import machine, table
from benchmarks.fabricate import Fabricator, Silence, inside, write_specs
from engine.build.driver import build
from engine.build.executors.base import Finished
from engine.build.executors.cluster import Needs
from engine.build.executors.distributed import distributed
from engine.build.pulling import Puller
from engine.build.settings import ExecutorSettings
from engine.core.graph import Step
from engine.core.workspace import Workspace
from engine.dvc import dvcfile
from engine.dvc.dvcfile import Entry, Record
from engine.dvc.hashing import Hashes
from engine.dvc.recording import Recorder
from engine.dvc.remote import Remote
from engine.jobs.sealed import Ended, ended_path, parse, path_of
from engine.plan.project import Project

HOURS = {
    "generate": 0.5,
    "split": 0.01,
    "tokenize": 0.1,
    "initialize": 0.02,
    "mix": 0.02,
    "train": 4.0,
    "predict": 0.5,
    "evaluate": 0.05,
    "score": 0.001,
}
"""How long a step takes in the simulation, on average."""
FAILURES_PER_HOUR = 0.01


@contextmanager
def workspaces(steps: int) -> Iterator[tuple[Path, Path]]:
    """A workspace of STEPS steps, nothing built, with a folder as its remote; and the folder that holds both."""
    with tempfile.TemporaryDirectory(prefix="machines-") as folder:
        base = Path(folder).resolve()
        root, store = base / "workspace", base / "store"
        root.mkdir()
        store.mkdir()
        os.environ["XDG_CACHE_HOME"] = folder
        for command in (["git", "init"], ["dvc", "init"], ["dvc", "remote", "add", "--default", "store", str(store)]):
            words = command if command[0] == "git" else [sys.executable, "-m", *command]
            subprocess.run([*words, "--quiet"], cwd=root, check=True)
        write_specs(root, steps)
        yield base, root


@dataclass
class Instant:
    """A cluster that has run each job when it is submitted: a node with the store as its cache, without processes."""

    node: Path
    store: Path
    project: Project
    files: dict[str, set[str]]
    seconds: float = 0.0
    """What it took itself, which a real cluster's nodes would."""
    name: str = "instant"

    def refusal(self, needs: Needs) -> None:
        """Any needs are met."""

    def submit(self, label: str, command: Sequence[str], needs: Needs) -> str:
        """Write what the step would leave, its record, and how it ended."""
        began = time.perf_counter()
        key, attempt = command[command.index("work") + 1], command[command.index("--attempt") + 1]
        job = parse((self.store / "adapterbuild" / path_of(key)).read_text("utf-8"))
        Fabricator(self.node, self.files).start(self.project.graph[job.step], {})
        recorder = Recorder(self.node, Hashes(self.node))
        recorder.write_run(Record(job.command, job.reads, {path: recorder.keep(path, link=False) for path in job.outputs}))
        target = self.store / "adapterbuild" / ended_path(key, attempt)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(Ended(0, "node", 0.0, "").text(), "utf-8")
        self.seconds += time.perf_counter() - began
        return key

    def states(self, ids: Iterable[str]) -> Mapping[str, str]:
        """All have ended."""
        return {}

    def cancel(self, ids: Iterable[str]) -> None:
        """Nothing runs."""

    def close(self) -> None:
        """Nothing is held."""


def overhead(steps: int, jobs: int) -> dict[str, Any]:
    """The build's own time per step on a cluster, and a second workspace's build beside `dvc pull`."""
    with workspaces(steps) as (base, root):
        node, store = base / "node", base / "store"
        (node / ".dvc").mkdir(parents=True)
        (node / ".dvc" / "config").write_text(f"[core]\n    no_scm = true\n[cache]\n    dir = {store}\n", "utf-8")
        second, third = base / "second", base / "third"
        shutil.copytree(root, second)
        project = Project(Workspace.at(root))
        cluster = Instant(node, store, project, inside(project))
        began, used = time.perf_counter(), processor()
        on_cluster(project, cluster, jobs)
        wall, used = time.perf_counter() - began, processor() - used
        shutil.copytree(root, third, ignore=shutil.ignore_patterns("cache", "tmp", "artifacts"))
        began = time.perf_counter()
        restored = Project(Workspace.at(second))
        with Remote(second) as remote:
            view = Counting()
            build(restored, restored.graph, Fabricator(second, inside(restored)), view, Puller(restored.store(), remote, warn))
        ours = time.perf_counter() - began
        began = time.perf_counter()
        # Files that git tracks are in no remote, so DVC says that it lacks them.
        subprocess.run([sys.executable, "-m", "dvc", "pull", "--quiet"], cwd=third, check=False, capture_output=True)
        theirs = time.perf_counter() - began
        own = wall - cluster.seconds
        found = {"steps": steps, "jobs": jobs, "wall_s": wall, "nodes_s": cluster.seconds, "overhead_per_step_s": own / steps}
        found["processor_per_step_s"] = (used - cluster.seconds) / steps
        return found | {"second_clone_s": ours, "dvc_pull_s": theirs, "second_clone_runs": view.runs}


@dataclass
class Counting(Silence):
    """Counts the steps that start."""

    runs: int = 0

    def started(self, step: Step) -> None:
        """One more."""
        self.runs += 1


def on_cluster(project: Project, cluster: Instant, jobs: int) -> None:
    """Build everything on CLUSTER."""
    with Remote(project.root) as remote, distributed(project, project.graph, cluster, remote, ExecutorSettings(), jobs, warn) as executor:
        build(project, project.graph, executor, Silence(), Puller(project.store(), remote, warn), here=False)


def processor() -> float:
    """Seconds of the processor of this process and of its children that have ended."""
    used = os.times()
    return used.user + used.system + used.children_user + used.children_system


def warn(text: str) -> None:
    """Nothing may go wrong here."""
    raise RuntimeError(text)


@dataclass
class Simulated(Fabricator):
    """NODES nodes in simulated time; a node that fails loses its step, which begins anew on another, and comes back."""

    nodes: int = 1
    draw: random.Random = field(default_factory=random.Random)
    now: float = 0.0
    """Hours."""
    lost: int = 0
    work: float = 0.0
    """Hours that steps take where nothing fails."""
    longest: dict[str, float] = field(default_factory=dict)
    """The end of each step where there are nodes enough and nothing fails: the critical path."""
    running: list[tuple[float, str, bool, float]] = field(default_factory=list)
    steps: dict[str, Step] = field(default_factory=dict)

    def free(self, step: Step) -> bool:
        """Whether a node is idle."""
        return len(self.running) < self.nodes

    def start(self, step: Step, read: Mapping[str, Entry]) -> None:
        """Occupy a node for as long as the step takes, or until the node fails."""
        hours = HOURS[step.kind_name] * self.draw.uniform(0.5, 1.5)
        self.work += hours
        self.steps[step.name] = step
        self.longest[step.name] = hours + max((self.longest[name] for name in step.producers), default=0.0)
        self._occupy(step.name, hours)

    def _occupy(self, name: str, hours: float) -> None:
        failure = self.draw.expovariate(FAILURES_PER_HOUR)
        heapq.heappush(self.running, (self.now + min(hours, failure), name, failure >= hours, hours))

    def wait(self) -> list[Finished]:
        """The next step that ends, after all that were lost before it."""
        while True:
            self.now, name, whole, hours = heapq.heappop(self.running)
            if whole:
                super().start(self.steps[name], {})
                self.ended.clear()
                return [Finished(self.steps[name], 0, hours * 3600)]
            self.lost += 1
            self._occupy(name, hours)

    def stop(self) -> list[Finished]:
        """Forget what runs."""
        self.running = []
        return []


def simulation(steps: int, nodes: int, seed: int) -> dict[str, Any]:
    """The makespan of STEPS steps on NODES failing nodes, beside the lower bound without failures."""
    with workspaces(steps) as (_, root):
        project = Project(Workspace.at(root))
        executor = Simulated(root, inside(project), nodes=nodes, draw=random.Random(seed))
        build(project, project.graph, executor, Silence())
        bound = max(executor.work / nodes, max(executor.longest.values()))
        kept = set(dvcfile.parse_lock((root / "dvc.lock").read_bytes())) & set(executor.steps)
        makespan = {"makespan_hours": executor.now, "lower_bound_hours": bound, "ratio": executor.now / bound}
        return {"steps": steps, "nodes": nodes, **makespan, "lost_attempts": executor.lost, "records_lost": len(executor.steps) - len(kept)}


def main() -> None:
    """Measure in one run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one JSON value as the last line of stdout")
    parser.add_argument("--quick", action="store_true", help="small graphs")
    chosen = parser.parse_args()
    measures: dict[str, Callable[[], dict[str, Any]]] = {
        "overhead": lambda: overhead(*((15, 10) if chosen.quick else (1_000, 50))),
        "clone": lambda: overhead(*((15, 10) if chosen.quick else (40, 50))),
        "simulation": lambda: simulation(*((39, 5, 1) if chosen.quick else (10_000, 500, 1))),
    }
    content: dict[str, Any] = {"machine": machine()}
    for name, measure in measures.items():
        found = content[name] = measure()
        values = [f"{value:,.3f}" if isinstance(value, float) else f"{value:,}" for value in found.values()]
        print(f"{name}\n{table(list(found), [values])}", flush=True)
    if chosen.json:
        print(json.dumps(content))


if __name__ == "__main__":
    main()
