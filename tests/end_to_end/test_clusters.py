"""Builds on a cluster: the same results as here, whatever dies; the cluster's nodes know nothing but the store.

Most run on a cluster of plain processes, a plug-in as others may write one (tests.support.processes): steps that need no torch, generate
and split. Slurm and Ray are real ones with three nodes each.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from engine.build.driver import dvc_environment
from engine.build.executors.cluster import Needs
from engine.build.executors.slurm import Slurm
from tests.end_to_end.conftest import COMMON, ROOT, Place, spec, told
from tests.support import processes, s3, slurm

ENGINE = str(Path(sys.executable).with_name("engine"))
LONG = """
[training]
method = "full"
steps = 600
global_batch = { rows = 2 }
"""
LIGHT = ("generate-a", "generate-b", "split-a", "split-b")
SPLITS = ("split-a", "split-b")


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """Two experiments, of which nothing is built, in a workspace without code: not to be changed."""
    place = Place(tmp_path_factory.mktemp("clusters") / "ws")
    place.root.mkdir()
    place.run("engine", "init", ".")
    (place.root / "specs/first.toml").unlink()
    place.write("data/a.jsonl", "".join(json.dumps({"word": f"w{n}"}) + "\n" for n in range(40)))
    place.write("data/b.jsonl", "".join(json.dumps({"word": f"w{n}", "double": f"w{n} w{n}"}) + "\n" for n in range(40)))
    place.write("specs/parts/common.toml", COMMON)
    place.write("specs/one.toml", spec("one", "a"))
    place.write("specs/two.toml", spec("two", "a", "b"))
    place.run("engine", "compile")
    place.commit("specs")
    return place


@pytest.fixture(scope="module")
def here(template: Place, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """The splits, built on this machine: not to be changed."""
    place = template.copy_to(tmp_path_factory.mktemp("here") / "ws")
    place.run("engine", "build", *SPLITS)
    return place


@pytest.fixture
def place(template: Place, tmp_path: Path) -> Place:
    """A workspace with a folder as its store, which builds on the cluster of processes."""
    place = template.copy_to(tmp_path / "ws")
    (tmp_path / "store").mkdir()
    place.run("dvc", "remote", "add", "--default", "store", str(tmp_path / "store"))
    settings(place)
    return place


def cluster_of(place: Place) -> Path:
    return place.root.parent / "cluster"


def settings(place: Place, **more: object) -> None:
    values = {"on": "processes", "command": ENGINE, "lost_after": 0.5, "folder": str(cluster_of(place)), **more}
    place.write("pyproject.toml", "[tool.adapterbuild.executor]\n" + "".join(f"{key} = {toml(value)}\n" for key, value in values.items()))


def toml(value: object) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {toml(item)}" for key, item in value.items()) + " }"
    return json.dumps(value)


def environment(place: Place) -> dict[str, str]:
    folder = cluster_of(place)
    site = folder / processes.SITE
    return dvc_environment() | {"PYTHONPATH": str(site if site.exists() else processes.install(folder))}


def start(place: Place, *command: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [ENGINE, *command], cwd=place.root, env=environment(place), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def build(place: Place, *targets: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [ENGINE, "build", *(targets or SPLITS)], cwd=place.root, env=environment(place), capture_output=True, text=True, check=False
    )


def records(place: Place) -> str:
    """What `dvc.lock` says of steps; its head is the same everywhere."""
    return (place.root / "dvc.lock").read_text()


def shifted(place: Place, seconds: int) -> dict[str, str]:
    """Variables for workers whose clock is wrong by SECONDS."""
    site = place.root.parent / "clock"
    site.mkdir()
    (site / "sitecustomize.py").write_text(
        "import datetime, time\n"
        f"right, SECONDS = time.time, {seconds}\n"
        "time.time = lambda: right() + SECONDS\n"
        "time.time_ns = lambda: int(time.time() * 10**9)\n"
        "class Wrong(datetime.datetime):\n"
        "    @classmethod\n"
        "    def now(cls, tz=None):\n"
        "        return cls.fromtimestamp(time.time(), tz)\n"
        "datetime.datetime = Wrong\n"
    )
    return {"PYTHONPATH": str(site)}


def key(folder: Path, name: str = "key") -> str:
    """The file of a new SSH key."""
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True)
    return str(folder / name)


def signed(place: Place, key: str) -> None:
    """Let PLACE sign with a key, and count only runs that an allowed key has signed."""
    path = place.root / "pyproject.toml"
    before = path.read_text() if path.exists() else ""
    path.write_text(f'{before}\n[tool.adapterbuild.store]\nkey = "{key}"\nallowed_signers = "allowed_signers"\n')
    (place.root / "allowed_signers").write_text(f"me@example.org {Path(f'{key}.pub').read_text()}")


def jobs(place: Place) -> list[str]:
    """The step of each submitted job, in order."""
    return [each["label"].removeprefix("ab-") for each in processes.submissions(cluster_of(place))]


def test_a_build_on_nodes_whose_clocks_are_an_hour_ahead_records_what_a_build_here_records(place: Place, here: Place):
    settings(place, environment=shifted(place, 3600))
    done = build(place)
    assert done.returncode == 0, done.stderr
    assert records(place) == records(here) and sorted(jobs(place)) == sorted(LIGHT)
    for name in LIGHT:
        for path in (f"metrics/{name}.json", f"artifacts/{name}.provenance.json"):
            assert (place.root / path).read_bytes() == (here.root / path).read_bytes()
    ran = json.loads((place.root / "artifacts/split-a.run.json").read_text())
    assert datetime.fromisoformat(ran["finished"]) > datetime.now(UTC) + timedelta(minutes=50)
    assert set(place.plan(*SPLITS).values()) == {"keep"}
    store = place.root.with_name("store")
    assert not left_behind(store) and not list((place.root / ".dvc/tmp/adapterbuild/jobs").iterdir())
    (job,) = [path.stem for path in store.glob("adapterbuild/jobs/*/*.json") if json.loads(path.read_text())["step"] == "split-a"]
    log = (cluster_of(place) / "ab-split-a.log").read_text()
    assert re.search(r"^run      split-a   on \S+$", log, re.MULTILINE) and re.search(r"^done     split-a   \d+ s$", log, re.MULTILINE), log
    again = subprocess.run([ENGINE, "work", job, "--store", str(store)], capture_output=True, text=True, check=False)
    assert again.returncode == 0 and "the store has the result of split-a: nothing to run" in again.stderr, again.stderr
    # For whoever signs, it counts once it is signed.
    words = [ENGINE, "work", job, "--store", str(store), "--key", key(place.root.parent)]
    said = [subprocess.run(words, capture_output=True, text=True, check=False).stderr for _ in range(2)]
    assert ["nothing to run" in each for each in said] == [False, True], said


def left_behind(store: Path) -> list[Path]:
    """What the store keeps of attempts and trainings that go on."""
    return [path for name in ("ended", "checkpoints") for path in (store / "adapterbuild" / name).rglob("*") if path.is_file()]


@pytest.mark.long
def test_a_training_that_is_stopped_goes_on_on_another_machine_with_the_same_bits(place: Place, tmp_path: Path):
    place.write("specs/long.toml", spec("long", "a", more=LONG))
    undisturbed = place.copy_to(tmp_path / "undisturbed")
    undisturbed.run("engine", "build", "--on", "local", "train-long")
    machine = tmp_path / "machine"
    machine.mkdir()
    settings(place, environment={"TMPDIR": str(machine)})
    signed(place, key(tmp_path))
    first = start(place, "build", "train-long")
    deadline = time.monotonic() + 200
    while not (begun := list(machine.glob("*/folder/artifacts/live/train-long/metrics.json"))):
        assert time.monotonic() < deadline and first.poll() is None, first.communicate()[1]
        time.sleep(0.05)
    (worker,) = [each["pid"] for each in processes.submissions(cluster_of(place)) if each["label"] == "ab-train-long"]
    # A scheduler signals every process of the job.
    os.killpg(worker, signal.SIGTERM)
    _, said = first.communicate(timeout=400)
    assert first.returncode == 0 and "preempted it; submitted again" in said, said
    assert not begun[0].exists() and jobs(place).count("train-long") == 2
    assert re.search(r"checkpoints of an earlier attempt: checkpoints/step-\d+", (cluster_of(place) / "ab-train-long.log").read_text())
    path = "artifacts/train-long.provenance.json"
    assert (place.root / path).read_bytes() == (undisturbed.root / path).read_bytes()
    assert not left_behind(place.root.with_name("store"))


@pytest.mark.long
def test_an_executable_input_is_one_on_the_node_and_its_object_stays_as_it_is(place: Place):
    (place.root / "data/b.jsonl").chmod(0o755)
    there = place.copy_to(place.root.with_name("there"))
    there.run("engine", "build", "--on", "local", "generate-b")
    assert build(place, "generate-b").returncode == 0
    assert records(place) == records(there) and "isexec: true" in records(place)
    objects = [
        path
        for path in place.root.with_name("store").glob("files/md5/*/*")
        if path.read_bytes() == (place.root / "data/b.jsonl").read_bytes()
    ]
    assert [path.stat().st_mode & 0o111 for path in objects] == [0]


def test_a_training_on_several_nodes_is_refused_where_jobs_have_one_before_anything_is_submitted_for_it(place: Place):
    place.write("specs/wide.toml", spec("wide", "a", more="\n[resources]\nnodes = 2\n"))
    place.run("engine", "build", "--on", "local", "mix-wide")
    done = build(place, "train-wide")
    assert done.returncode == 1 and "train-wide trains on 2 nodes, and a job of processes has one" in done.stderr, done.stderr


def test_what_a_cluster_with_slow_clocks_has_built_is_restored_in_a_clone_and_never_submitted_again(place: Place):
    needs = {"default": {"minutes": 5}, "split": {"cores": 3, "memory": "2GB"}}
    settings(place, environment=shifted(place, -3600), needs=needs)
    signed(place, key(place.root.parent))
    build(place)
    place.commit("built")
    root = place.root.with_name("clone")
    place.git("clone", "--quiet", str(place.root), str(root))
    shutil.copy(place.root / ".dvc/config", root / ".dvc/config")
    clone = Place(root)
    (root / "dvc.lock").unlink()
    done = build(clone)
    assert done.returncode == 0 and done.stderr.count("restored") == len(LIGHT), done.stderr
    assert len(jobs(place)) == len(LIGHT)
    told_needs = {each["label"]: each["needs"] for each in processes.submissions(cluster_of(place))}
    assert told_needs["ab-split-a"] == {"cores": 3, "devices": 0, "memory": 2_000_000_000, "minutes": 5}
    assert told_needs["ab-generate-a"] == {"cores": 1, "devices": 0, "memory": 0, "minutes": 5}


@pytest.mark.long
def test_workers_that_are_killed_leave_nothing_that_counts(place: Place, here: Place):
    settings(place, killed=True)
    done = build(place)
    assert done.returncode == 0, done.stderr
    assert records(place) == records(here)
    assert Counter(jobs(place)) == dict.fromkeys(LIGHT, len(processes.MOMENTS) + 1)


@pytest.mark.long
def test_a_step_that_is_lost_again_and_again_fails_and_the_others_go_on(place: Place):
    settings(place, environment={"PATH": "/nonexistent"}, command=["/bin/sh", "-c", 'case "$*" in *) kill -9 $$;; esac', "sh"])
    done = build(place)
    assert done.returncode == 1 and re.search(r"generate-a +its node was lost; given up after 5 attempts", done.stderr), done.stderr
    assert "generate-a, generate-b failed" in done.stderr or "generate-b, generate-a failed" in done.stderr


@pytest.mark.long
def test_a_failed_step_stops_only_what_depends_on_it(place: Place):
    place.edit("specs/parts/common.toml", 'column = "double" }', 'column = "nothing" }')
    done = build(place)
    assert done.returncode == 1 and "generate-b failed" in done.stderr and "nothing" in done.stderr
    assert set(place.plan(*SPLITS).items()) >= {("split-a", "keep"), ("generate-a", "keep"), ("generate-b", "run")}


def test_a_killed_build_finds_its_jobs_when_it_is_started_again(place: Place, here: Place):
    # The first attempts take long enough to be met by the second build.
    settings(place, first=["/bin/sh", "-c", 'sleep 3; exec "$@"', "sh"])
    first = start(place, "build", *SPLITS)
    deadline = time.monotonic() + 60
    while len(jobs(place)) < 2:
        assert time.monotonic() < deadline and first.poll() is None
        time.sleep(0.05)
    first.kill()
    first.communicate()
    assert build(place).returncode == 0 and records(place) == records(here)
    assert sorted(jobs(place)) == sorted(LIGHT)


@pytest.mark.long
def test_a_detached_build_is_taken_up_and_waited_for(place: Place, here: Place):
    done = build(place, *SPLITS, "--detach")
    assert done.returncode == 2 and "left running" in done.stderr and "engine wait" in done.stderr
    waited = start(place, "wait")
    _, said = waited.communicate(timeout=300)
    assert waited.returncode == 0 and records(place) == records(here), said
    assert sorted(jobs(place)) == sorted(LIGHT)
    assert "no build was detached here" in place.run("engine", "wait").stderr


@pytest.mark.long
def test_an_interrupted_build_ends_its_jobs(place: Place):
    settings(place, first=["/bin/sh", "-c", 'sleep 60; exec "$@"', "sh"])
    first = start(place, "build", *SPLITS)
    deadline = time.monotonic() + 60
    while len(jobs(place)) < 2:
        assert time.monotonic() < deadline and first.poll() is None
        time.sleep(0.05)
    first.send_signal(signal.SIGINT)
    first.communicate(timeout=60)
    assert first.returncode == 130
    for each in processes.submissions(cluster_of(place)):
        processes.wait_for(each["pid"], 20)


@pytest.mark.long
def test_two_builds_at_once_come_to_the_same(place: Place, here: Place):
    other = place.copy_to(place.root.with_name("other"))
    both = [start(each, "build", *SPLITS) for each in (place, other)]
    for each in both:
        _, said = each.communicate(timeout=300)
        assert each.returncode == 0, said
    assert records(place) == records(other) == records(here)


@pytest.mark.long
def test_a_store_that_is_away_for_a_while_costs_only_time(place: Place, here: Place):
    store, away = place.root.with_name("store"), place.root.with_name("away")
    first = start(place, "build", *SPLITS)
    deadline = time.monotonic() + 60
    while not jobs(place):
        assert time.monotonic() < deadline and first.poll() is None
        time.sleep(0.05)
    store.rename(away)
    time.sleep(4)
    # What a worker has written into a folder of its own making meanwhile is no store.
    shutil.rmtree(store, ignore_errors=True)
    away.rename(store)
    _, said = first.communicate(timeout=300)
    assert first.returncode == 0, said
    assert records(place) == records(here)


@pytest.mark.long
def test_a_node_with_another_version_of_a_package_refuses_the_step(place: Place):
    site = place.root.parent / "other"
    (site / "jinja2-99.0.dist-info").mkdir(parents=True)
    (site / "jinja2-99.0.dist-info/METADATA").write_text("Metadata-Version: 2.1\nName: jinja2\nVersion: 99.0\n")
    settings(place, environment={"PYTHONPATH": str(site)})
    done = build(place)
    assert done.returncode == 1 and "99.0 is installed, the lock says" in done.stderr, done.stderr


@pytest.mark.long
@pytest.mark.skipif(os.geteuid() != 0, reason="a disk of a few kilobytes needs root")
def test_a_full_disk_on_a_node_fails_the_step_and_names_it(place: Place, tmp_path: Path):
    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24k", "none", small], check=False).returncode:
        pytest.skip("no file system can be mounted here")
    try:
        settings(place, environment={"TMPDIR": str(small)})
        done = build(place)
    finally:
        subprocess.run(["umount", "--lazy", small], check=True)
    assert done.returncode == 1 and "space" in done.stderr and "generate-a" in done.stderr, done.stderr


def test_needs_that_no_node_meets_are_refused_before_anything_is_submitted(place: Place):
    settings(place, needs={"generate": {"cores": 65}})
    done = build(place)
    assert done.returncode == 1 and not jobs(place)
    assert re.search(r"generate-\w cannot run on processes: no node has 64 cores", done.stderr), done.stderr


def test_a_step_that_no_node_can_run_is_refused_before_the_steps_that_it_reads_are_submitted(place: Place):
    settings(place, needs={"train": {"cores": 65}})
    done = build(place, "train-one", "train-two")
    assert done.returncode == 1 and not jobs(place)
    assert re.search(r"train-\w+ cannot run on processes: no node has 64 cores", done.stderr), done.stderr


def test_a_job_that_the_cluster_refuses_fails_its_step_and_the_others_go_on(place: Place):
    settings(place, refused="generate-b")
    done = build(place)
    assert done.returncode == 1 and re.search(r"failed +generate-b +processes refuses the job: invalid account", done.stderr), done.stderr
    assert set(place.plan(*SPLITS).items()) >= {("split-a", "keep"), ("generate-b", "run")}


def test_jobs_wait_where_the_cluster_takes_one_at_a_time(place: Place, here: Place):
    settings(place, room=1)
    done = build(place)
    assert done.returncode == 0 and "takes no further job now: job submit limit" in done.stderr, done.stderr
    assert records(place) == records(here) and sorted(jobs(place)) == sorted(LIGHT)


def test_a_command_that_the_nodes_lack_fails_at_once_and_says_so(place: Place):
    settings(place, explains=True, lost_after=600, command=["/bin/sh", "-c", "enginee"])
    done = build(place, "generate-a")
    assert done.returncode == 1 and jobs(place) == ["generate-a"], done.stderr
    assert re.search(r"failed +generate-a .*exit code 127: .*enginee.* not found \(set command in", done.stderr), done.stderr


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("on = 3", "on must be the name of an executor, got 3"),
        ("jobs = 0", "jobs must be a number above zero, got 0"),
        ('on = "slrum"', "unknown executor 'slrum'"),
        ("needs = { trian = { cores = 1 } }", "needs.trian: unknown kind of step"),
        ('needs = { train = { memory = "lots" } }', "needs.train.memory must be a size such as \"16GB\", got 'lots'"),
        ("needs = { train = { gpus = 1 } }", "needs.train.gpus is not a need"),
        ("command = []", "command must be a program"),
    ],
)
def test_settings_that_mean_nothing_are_named(place: Place, text: str, said: str):
    place.write("pyproject.toml", f"[tool.adapterbuild.executor]\n{text}\n")
    done = build(place)
    assert done.returncode == 1 and said in done.stderr, done.stderr


def test_a_cluster_without_a_store_is_an_error_with_the_way_out(template: Place, tmp_path: Path):
    place = template.copy_to(tmp_path / "ws")
    settings(place)
    done = build(place)
    assert done.returncode == 1 and "dvc remote add --default" in done.stderr


def test_secrets_are_not_for_the_command_line(tmp_path: Path):
    done = subprocess.run(
        [ENGINE, "work", "0" * 64, "--store", "s3://bucket", "--store-option", "secret_access_key=x"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1 and "secret_access_key is a secret" in done.stderr


def test_a_job_that_was_edited_in_the_store_is_refused(place: Place):
    settings(place, command=["/bin/true"])
    first = start(place, "build", "generate-a")
    deadline = time.monotonic() + 60
    store = place.root.with_name("store")
    while not (found := list(store.glob("adapterbuild/jobs/*/*.json"))):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    first.kill()
    first.communicate()
    content = json.loads(found[0].read_text())
    found[0].write_text(json.dumps(content | {"identity": content["identity"].replace("word", "other")}))
    done = subprocess.run([ENGINE, "work", found[0].stem, "--store", str(store)], capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "it was edited" in done.stderr


@pytest.fixture
def real_slurm(tmp_path_factory: pytest.TempPathFactory):
    """A Slurm cluster of three nodes."""
    if reason := slurm.obstacle():
        pytest.skip(reason)
    cluster = slurm.SlurmCluster(tmp_path_factory.mktemp("slurm"))
    try:
        yield cluster.start()
    finally:
        cluster.stop()


@pytest.mark.long
def test_slurm_cancels_what_runs_and_what_waits_whatever_has_ended(real_slurm: slurm.SlurmCluster, tmp_path: Path, monkeypatch):
    monkeypatch.setenv("SLURM_CONF", real_slurm.environment["SLURM_CONF"])
    scheduler = Slurm.of({})
    code = "import pathlib, signal, sys; file = pathlib.Path(sys.argv[1]); file.touch(); signal.sigwait([15]); file.write_text('told')"
    block = (
        "import signal, os, sys; signal.pthread_sigmask(signal.SIG_BLOCK, [15]); os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
    )
    file = tmp_path / "file"
    assert scheduler.refusal(Needs(), 3) is None and "not available" in (scheduler.refusal(Needs(), 4) or "")
    ended = scheduler.submit("ended", ["true"], Needs())
    until(lambda: not scheduler.states([ended]))
    running = scheduler.submit("running", [sys.executable, "-c", block, "-c", code, str(file)], Needs())
    until(file.exists)
    waiting = scheduler.submit("waiting", ["sleep", "60"], Needs())
    real_slurm.command("scontrol", "hold", waiting)
    array = scheduler.submit_many([(f"task-{n}", ["sleep", "60"] if n else ["true"]) for n in range(8)], Needs())
    assert array == [f"{array[0].partition('_')[0]}_{n}" for n in range(8)]
    # One has ended, a node's other processors have four, and three wait.
    until(lambda: sorted(state[:3] for state in scheduler.states(array).values()) == ["que"] * 3 + ["run"] * 4)
    scheduler.cancel(array[2:])
    until(lambda: not scheduler.states(array[2:]))
    assert scheduler.states(array).keys() == {array[1]}
    scheduler.cancel([ended, running, waiting, array[1], "99999"])
    until(lambda: not scheduler.states([running, waiting, *array]))
    assert file.read_text() == "told"


def until(holds, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.long
def test_slurm_may_lose_a_node_and_its_controller_and_the_build_of_an_array(place: Place, here: Place, real_slurm: slurm.SlurmCluster):
    place.write("pyproject.toml", f'[tool.adapterbuild.executor]\non = "slurm"\ncommand = "{ENGINE}"\nlost_after = 1\n')
    environment = dvc_environment() | real_slurm.environment
    words = {"cwd": place.root, "env": environment, "stderr": subprocess.PIPE, "text": True}
    killed = subprocess.Popen([ENGINE, "build", *SPLITS], **words)
    notes = place.root / ".dvc/tmp/adapterbuild/jobs"
    until(lambda: len(list(notes.glob("*.json"))) == 2)
    killed.kill()
    killed.communicate()
    ids = [json.loads(path.read_text())["id"] for path in notes.glob("*.json")]
    (array,) = {each.partition("_")[0] for each in ids}
    assert {each.partition("_")[2] for each in ids} == {"0", "1"}
    queue = ""
    while "RUNNING" not in queue:
        queue = real_slurm.command("squeue", "--noheader", "--array", f"--jobs={array}", "--format=%T %N")
    node = re.search(r"RUNNING (n\d)", queue)[1]
    first = subprocess.Popen([ENGINE, "build", *SPLITS], **words)
    real_slurm.kill(node)
    real_slurm.command("scontrol", "update", f"nodename={node}", "state=down", "reason=test")
    real_slurm.kill("slurmctld")
    time.sleep(1)
    real_slurm.start_controller()
    _, said = first.communicate(timeout=300)
    assert first.returncode == 0, said + real_slurm.logs()
    assert records(place) == records(here)
    assert set(re.findall(r"Name=ab-generate-\S+ .*ArrayJobId=(\d+)", real_slurm.completed())) == {array}, "it was submitted twice"


@pytest.mark.long
def test_a_training_on_two_nodes_of_slurm_is_one_job_and_ends_with_the_bits_of_two_devices_here(
    place: Place, tmp_path: Path, real_slurm: slurm.SlurmCluster
):
    place.write("specs/wide.toml", spec("wide", "a", more="\n[resources]\nnodes = 2\n"))
    place.run("engine", "build", "--on", "local", "mix-wide")
    one = place.copy_to(tmp_path / "one")
    one.edit("specs/wide.toml", "nodes = 2", "devices = 2")
    one.run("engine", "build", "--on", "local", "train-wide")
    place.write("pyproject.toml", f'[tool.adapterbuild.executor]\non = "slurm"\ncommand = "{ENGINE}"\nneeds.train.memory = "2GB"\n')
    words = [ENGINE, "build", "train-wide"]
    environment = dvc_environment() | real_slurm.environment
    done = subprocess.run(words, cwd=place.root, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr + real_slurm.logs()
    path = "artifacts/train-wide.provenance.json"
    assert told(place.root / path).digest == told(one.root / path).digest
    assert not left_behind(place.root.with_name("store"))
    until(lambda: re.search(r"Name=ab-train-wide JobState=COMPLETED .*NodeCnt=2 ", real_slurm.completed()))


@pytest.mark.long
def test_ray_builds_what_was_built_here(place: Place, built: Place):
    pytest.importorskip("ray", reason="ray is not installed")
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        for _ in range(2):
            cluster.add_node(num_cpus=2)
        place.write("pyproject.toml", f'[tool.adapterbuild.executor]\non = "ray"\ncommand = "{ENGINE}"\naddress = "{cluster.address}"\n')
        done = subprocess.run([ENGINE, "build"], cwd=place.root, env=dvc_environment(), capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert_same_results(place, built)
        place.edit("specs/parts/common.toml", "validation = 0.1", "validation = 0.2")
        place.edit("pyproject.toml", ENGINE, "/nowhere/engine")
        lost = build(place, "split-a")
        assert lost.returncode == 1 and re.search(r"failed +split-a .*exit code 127: .*/nowhere/engine.*\(set command in", lost.stderr), (
            lost.stderr
        )
        place.edit("pyproject.toml", "/nowhere/engine", ENGINE)
        place.edit("pyproject.toml", "address", "needs = { default = { devices = 8 } }\naddress")
        refused = build(place)
        assert refused.returncode == 1 and "no node of the Ray cluster has 1 CPU, 8 GPU" in refused.stderr
    finally:
        cluster.shutdown()


def test_what_was_pushed_is_planned_as_restored_with_its_size_and_downloaded_by_the_build(template: Place, here: Place, tmp_path: Path):
    ours = here.copy_to(tmp_path / "ours")
    (tmp_path / "store").mkdir()
    clone = template.copy_to(tmp_path / "clone")
    for each in (ours, clone):
        each.run("dvc", "remote", "add", "--default", "store", str(tmp_path / "store"))
    ours.run("engine", "push", "split-a")
    assert clone.plan(*SPLITS)["split-a"] == "run", "a plan without --remote knows of no remote"
    theirs = key(tmp_path, "theirs")
    signed(clone, key(tmp_path, "mine"))
    said = clone.run("engine", "plan", "--remote", "split-a", check=False)
    assert "generate-a: a run in the store does not count: it is not signed" in said.stderr and "restore" not in said.stdout
    signed(ours, theirs)
    ours.run("engine", "push", "split-a")
    told_keys = clone.run("engine", "keys", "--allow", "theirs@example.org", "--public", f"{theirs}.pub").stdout
    assert "theirs@example.org SHA256:" in told_keys and "me@example.org SHA256:" in told_keys
    said = clone.run("engine", "plan", "--remote", *SPLITS, check=False).stdout
    assert re.search(
        r"restore +split-a +never built\n.*DVC's remote has the result, built by \S+ on \d{4}-\d\d-\d\d; \d+\.\d KB to download", said
    ), said
    assert "run      split-b" in said
    assert not (clone.root / "artifacts/split-a").exists()
    path = clone.root / "pyproject.toml"
    path.write_text(f'{path.read_text()}push = "always"\n')
    said = clone.run("engine", "build", "--pull", "split-a", "generate-b", check=False).stderr
    assert "allowed_signers does not allow" not in said and "restored split-a" in said and re.search(r"pushed +generate-b", said), said
    again = ours.run("engine", "push", "split-a").stderr
    assert "0.0 MB sent" in again and again.count("the remote has it") == 2


def test_pushing_what_is_not_built_says_so(template: Place, tmp_path: Path):
    place = template.copy_to(tmp_path / "ws")
    (tmp_path / "store").mkdir()
    place.run("dvc", "remote", "add", "--default", "store", str(tmp_path / "store"))
    assert "not built, so not pushed: generate-a, split-a" in place.run("engine", "push", "split-a").stderr


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", (ROOT / "docs/how-to" / page).read_text("utf-8"), re.MULTILINE | re.DOTALL)


@pytest.mark.long
def test_the_page_goes_from_a_laptop_to_a_slurm_cluster_with_a_bucket_and_builds_what_was_built_here(
    template: Place, built: Place, tmp_path: Path, bucket: s3.Bucket, real_slurm: slurm.SlurmCluster
):
    place = template.copy_to(tmp_path / "ws")
    environment = dvc_environment() | real_slurm.environment
    environment["PATH"] = f"{Path(ENGINE).parent}{os.pathsep}{environment['PATH']}"
    (settings_block, *_) = blocks("many-machines.md", "toml")
    typed = []
    for text in blocks("many-machines.md", "sh"):
        for line in text.splitlines():
            command = line.partition("#")[0].strip()
            if command.startswith("pip "):
                continue
            command = command.replace("split-hello", "split-a")
            if command == "engine build":
                place.write("pyproject.toml", settings_block.replace("/shared/venv/bin/engine", ENGINE))
            done = subprocess.run(command, shell=True, cwd=place.root, env=environment, capture_output=True, text=True, check=False)
            allowed = (0, 2) if "plan" in command or "--detach" in command else (0,)
            assert done.returncode in allowed, f"{command}\n{done.stdout}{done.stderr}{real_slurm.logs()}"
            typed.append(command.partition(" ")[2])
    assert {"build", "build --detach", "wait", "build --on local"} <= set(typed)
    assert_same_results(place, built)


def assert_same_results(place: Place, built: Place) -> None:
    """Everything is built, and the ends of the graph have the digests that they have in BUILT."""
    assert set(place.plan().values()) == {"keep"}
    for name in ("train-one", "train-two", "evaluate-two"):
        path = f"artifacts/{name}.provenance.json"
        assert told(place.root / path).digest == told(built.root / path).digest


@pytest.mark.long
def test_the_example_of_an_executor_builds_over_ssh(place: Place, here: Place, tmp_path: Path):
    daemon = shutil.which("sshd", path="/usr/sbin:/usr/bin")
    if daemon is None or os.geteuid() != 0:
        pytest.skip("needs sshd (Debian's package openssh-server) and root")
    (source, *_) = blocks("write-an-executor.md", "python")
    site = processes.install(cluster_of(place))
    (site / "ssh_example.py").write_text(source)
    entry = site / "processes-1.dist-info/entry_points.txt"
    entry.write_text(entry.read_text() + "ssh = ssh_example:Ssh\n")
    (port,) = slurm.free_ports(1)
    for key in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / key], check=True)
    shutil.copy(tmp_path / "user.pub", tmp_path / "authorized")
    (tmp_path / "sshd_config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {tmp_path}/host\n"
        f"AuthorizedKeysFile {tmp_path}/authorized\nStrictModes no\nUsePAM no\n"
    )
    Path("/run/sshd").mkdir(exist_ok=True)
    server = subprocess.Popen([daemon, "-D", "-e", "-f", tmp_path / "sshd_config"], stderr=(tmp_path / "sshd.log").open("wb"))
    options = ["-p", str(port), "-i", str(tmp_path / "user"), "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"]
    values = {"on": "ssh", "command": ENGINE, "hosts": {"127.0.0.1": 2}, "options": options, "lost_after": 1}
    place.write("pyproject.toml", "[tool.adapterbuild.executor]\n" + "".join(f"{key} = {quoted(value)}\n" for key, value in values.items()))
    try:
        done = build(place)
    finally:
        server.terminate()
        server.wait()
    assert done.returncode == 0, done.stderr + (tmp_path / "sshd.log").read_text()
    assert records(place) == records(here)


def quoted(value: object) -> str:
    """As `toml`, with keys in quotes: a host's name has dots."""
    return "{ " + ", ".join(f'"{key}" = {item}' for key, item in value.items()) + " }" if isinstance(value, dict) else toml(value)
