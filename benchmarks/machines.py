"""Builds on many machines: what they add to steps, what they move, a second clone's build, and a large cluster with failing nodes.

    python benchmarks/machines.py [--quick] [--json]

`overhead`: the real build, store and jobs; the cluster is one that has run each job when it is submitted, whose own time is left out.
`overhead` also times `engine plan` where nothing is built and the store has everything, with and without `--remote`.
`clone`: what a build on a cluster has left in the store, restored in a second workspace, compared with `dvc pull` of the same results.
`efficiency`: eight steps that wait for a teacher (a server on loopback), on eight slots of this machine: of the build's own processes,
of a Slurm cluster of four nodes, of a Ray cluster. Slots share the cores here, so the start of eight workers counts for more than on as
many machines.
`transfer`: the bytes that a node fetches from S3 (moto's server) for the trainings of a sweep on one base.
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
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
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
from stages.process.saved import Saved
from tests.stages.generate.chat_server import running
from tests.support import processes, slurm

ENGINE = Path(sys.executable).with_name("engine")
WAITING = """
[experiment]
name = "waiting"
[model]
name = "tiny"
architecture = {{ kind = "llama", hidden_size = 16, layers = 1, heads = 2, max_length = 128 }}
[mixture]
tasks = {tasks}
[training]
method = "full"
"""
"""An experiment whose tasks are answered by a teacher."""
TASK = """
[tasks.{name}]
source = {{ kind = "jsonl", path = "rows.jsonl" }}
prompts = ["{name} {{{{ word }}}}"]
teacher = {{ kind = "chat", model = "m", base_url = "{url}", api_key_env = "TEACHER_KEY", timeout = 600.0 }}
"""
SWEPT = """
[experiment]
name = "swept"
[model]
name = "small"
architecture = {{ kind = "llama", hidden_size = 256, layers = 4, heads = 4, max_length = 128 }}
[tasks.words]
source = {{ kind = "jsonl", path = "rows.jsonl" }}
prompts = ["Repeat {{{{ word }}}}"]
teacher = {{ kind = "gold", column = "word" }}
[mixture]
tasks = ["words"]
[training]
method = "lora"
steps = 2
[sweep]
grid.training.learning_rate = {rates}
"""
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
    """The build's own time per step on a cluster, and a second workspace's build compared with `dvc pull`."""
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
        plan_seconds(third)  # what was compiled is remembered
        looked_up = {"plan_s": plan_seconds(third), "plan_remote_s": plan_seconds(third, "--remote")}
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
        return found | looked_up | {"second_clone_s": ours, "dvc_pull_s": theirs, "second_clone_runs": view.runs}


def plan_seconds(root: Path, *options: str) -> float:
    """Seconds of a whole `engine plan`."""
    began = time.perf_counter()
    subprocess.run([str(ENGINE), "plan", "--json", *options], cwd=root, check=False, capture_output=True)
    return time.perf_counter() - began


@dataclass
class Counting(Silence):
    """Counts the steps that start."""

    runs: int = 0

    def started(self, step: Step, resumes: Saved | None) -> None:
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


def efficiency(slots: int, seconds: float) -> dict[str, Any]:
    """SECONDS compared with the time of a build of as many steps of SECONDS as there are SLOTS, for each executor that this machine has."""
    found: dict[str, Any] = {"steps": slots, "seconds": seconds}
    os.environ["TEACHER_KEY"] = "sk-benchmark-0123456789"  # Ray's nodes have the environment that they were started in
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="machines-"))).resolve()
        teacher = stack.enter_context(running(seconds))
        tasks = [f"task{number}" for number in range(slots)]
        text = WAITING.format(tasks=json.dumps(tasks)) + "".join(TASK.format(name=name, url=teacher.url) for name in tasks)
        clusters: dict[str, tuple[dict[str, Any], dict[str, str]]] = {"local": ({}, {})}
        if slurm.obstacle() is None:
            cluster = slurm.SlurmCluster(folder / "slurm", nodes=(slots + 1) // 2)
            stack.callback(cluster.stop)
            clusters["slurm"] = ({"command": str(ENGINE)}, cluster.start().environment)
        if address := stack.enter_context(ray_cluster(slots)):
            clusters["ray"] = ({"command": str(ENGINE), "address": address}, {})
        for name, (settings, more) in clusters.items():
            root = folder / name
            # One row: of several, the first would be asked alone, to see whether the teacher answers.
            written(root, "waiting", text, {"on": name, **settings}, folder / f"store-{name}", rows=1)
            words = [str(ENGINE), "build", "--jobs", str(slots), *(f"generate-{task}" for task in tasks)]
            began = time.perf_counter()
            done = subprocess.run(words, cwd=root, env=os.environ | more, capture_output=True, text=True, check=False)
            if done.returncode:
                raise RuntimeError(done.stderr)
            found[f"{name}_s"] = time.perf_counter() - began
            found[f"{name}_efficiency"] = seconds / found[f"{name}_s"]
    return found


@contextmanager
def ray_cluster(slots: int) -> Iterator[str | None]:
    """The address of a Ray cluster with SLOTS processors on this machine; None where Ray is not installed."""
    try:
        from ray.cluster_utils import Cluster
    except ImportError:
        yield None
        return
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": slots, "include_dashboard": False})
    try:
        yield str(cluster.address)
    finally:
        cluster.shutdown()


def written(root: Path, name: str, spec: str, settings: Mapping[str, Any], store: Path | str, rows: int = 20) -> None:
    """Make ROOT a workspace with SPEC as its only one, ROWS rows, STORE as its remote, and the executor's SETTINGS."""
    (root / "specs").mkdir(parents=True)
    (root / "specs" / f"{name}.toml").write_text(spec)
    (root / "rows.jsonl").write_text("".join(json.dumps({"word": f"word {number}"}) + "\n" for number in range(rows)))
    values = "".join(f"{key} = {json.dumps(value)}\n" for key, value in settings.items())
    (root / "pyproject.toml").write_text(f"[tool.adapterbuild.executor]\n{values}")
    if isinstance(store, Path):
        store.mkdir()
    for words in (
        ["git", "init"],
        [sys.executable, "-m", "dvc", "init"],
        [sys.executable, "-m", "dvc", "remote", "add", "-d", "store", str(store)],
    ):
        subprocess.run([*words, "--quiet"], cwd=root, check=True)


@dataclass
class Traffic:
    """What requests of one user of an S3 server have read, by object."""

    user: str
    read: Counter[str] = field(default_factory=Counter)
    """Bytes by path."""


@contextmanager
def bucket(traffic: Traffic) -> Iterator[str]:
    """The URL of a server of S3's protocol on loopback with one bucket, `store`, which counts TRAFFIC."""
    import boto3
    from moto.server import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import WSGIRequestHandler, make_server

    class Quiet(WSGIRequestHandler):
        def log(self, type: str, message: str, *args: Any) -> None:
            """Print no request."""

    application = DomainDispatcherApplication(create_backend_app)

    def answer(environ: dict[str, Any], start_response: Any) -> Any:
        body = application(environ, start_response)
        if environ["REQUEST_METHOD"] == "GET" and f"Credential={traffic.user}/" in environ.get("HTTP_AUTHORIZATION", ""):
            parts = list(body)
            traffic.read[environ["PATH_INFO"]] += sum(map(len, parts))
            return parts
        return body

    server = make_server("127.0.0.1", 0, answer, threaded=True, request_handler=Quiet)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.port}"
    secrets = {"aws_access_key_id": "driver", "aws_secret_access_key": "none", "region_name": "us-east-1"}
    boto3.client("s3", endpoint_url=url, **secrets).create_bucket(Bucket="store")
    try:
        yield url
    finally:
        server.shutdown()


def transfer(trainings: int) -> dict[str, Any]:
    """The bytes that a node reads for TRAININGS trainings of a sweep, compared with the size of their inputs."""
    node = Traffic("node")
    with tempfile.TemporaryDirectory(prefix="machines-") as name, bucket(node) as url:
        folder = Path(name).resolve()
        root, cluster = folder / "workspace", folder / "cluster"
        keys = {"AWS_SECRET_ACCESS_KEY": "none", "AWS_DEFAULT_REGION": "us-east-1", "AWS_ENDPOINT_URL": url}
        own = {"AWS_ACCESS_KEY_ID": "node", "HOME": str(folder / "node"), "XDG_CACHE_HOME": str(folder / "node")}
        rates = [(number + 1) * 1e-5 for number in range(trainings)]
        settings = {"on": "processes", "command": str(ENGINE), "folder": str(cluster)}
        written(root, "swept", SWEPT.format(rates=json.dumps(rates)), settings, "s3://store")
        environment = os.environ | keys | {"AWS_ACCESS_KEY_ID": "driver", "PYTHONPATH": str(processes.install(cluster))}
        settings_file = root / "pyproject.toml"
        given = ", ".join(f"{key} = {json.dumps(value)}" for key, value in own.items())
        settings_file.write_text(settings_file.read_text() + f"environment = {{ {given} }}\n")
        graph = Project(Workspace.at(root)).graph
        steps = [step.name for step in graph if step.kind_name == "train"]
        before = [step.name for step in graph if step.kind_name in ("initialize", "tokenize", "mix")]
        for words in (["--on", "local", *before], ["--jobs", str(os.cpu_count() or 1), *steps]):
            done = subprocess.run([str(ENGINE), "build", *words], cwd=root, env=environment, capture_output=True, text=True, check=False)
            if done.returncode:
                raise RuntimeError(done.stderr)
        records = dvcfile.parse_lock((root / "dvc.lock").read_bytes())
        each = [entry for step in steps for entry in records[step].dependencies.values()]
        moved = {"trainings": trainings, "read_bytes": sum(node.read.values())}
        moved["inputs_bytes"] = sum({entry.md5: entry.size for entry in each}.values())
        return moved | {"inputs_of_each_bytes": sum(entry.size for entry in each)}


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

    def stop(self, asked: bool = True) -> list[Finished]:
        """Forget what runs."""
        self.running = []
        return []


def simulation(steps: int, nodes: int, seed: int) -> dict[str, Any]:
    """The makespan of STEPS steps on NODES failing nodes, compared with the lower bound without failures."""
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
        "efficiency": lambda: efficiency(*((2, 1.0) if chosen.quick else (8, 60.0))),
        "transfer": lambda: transfer(2 if chosen.quick else 20),
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
