"""`engine build` against `dvc repro`: the same artifacts, records and run cache; side by side, failing, damaged, locked."""

import fcntl
import json
import subprocess
import sys
from pathlib import Path

import pytest

from engine.build.driver import dvc_environment
from engine.dvc import dvcfile
from engine.dvc.dvcfile import Record, parse_lock
from tests.end_to_end.conftest import Place, address, make_place
from tests.end_to_end.light import TARGETS

pytestmark = pytest.mark.slow


def records(root: Path) -> dict[str, Record]:
    """What `dvc.lock` says, save for the provenance files: they hold times."""
    return {
        name: Record(record.command, record.dependencies, {path: e for path, e in record.outputs.items() if "provenance" not in path})
        for name, record in parse_lock((root / "dvc.lock").read_text()).items()
    }


def sizes(root: Path) -> dict[str, tuple[int, int | None]]:
    return {
        f"{name}:{path}": (entry.size, entry.files)
        for name, record in records(root).items()
        for path, entry in {**record.dependencies, **record.outputs}.items()
    }


def run_keys(root: Path) -> set[str]:
    """Keys of all runs; records of runs differ from run to run, their keys do not."""
    return {path.name for path in (root / dvcfile.CACHE / "runs").glob("*/*")}


def changed(place: Place) -> set[str]:
    """The stages that `dvc status` lists; `resolve` is among them always."""
    return set(json.loads(place.run("dvc", "status", "--json").stdout))


def objects(root: Path) -> set[str]:
    listed = {m for path in (root / dvcfile.CACHE / "files/md5").glob("*/*.dir") for m in dvcfile.parse_tree(path.read_bytes()).values()}
    return listed | {path.parent.name + path.name for path in (root / dvcfile.CACHE / "files/md5").glob("*/*.dir")}


@pytest.mark.long
def test_another_build_from_nothing_side_by_side_gives_what_dvc_repro_gave(built: Place, tmp_path):
    again = make_place(tmp_path / "again")
    done = again.run("engine", "build", "--jobs", "2")
    assert "evaluate-two" in done.stderr and "exact_match on held-out rows" in done.stdout
    digests = [{p.name: address(p) for p in sorted((root / "artifacts").glob("*.provenance.json"))} for root in (built.root, again.root)]
    assert digests[0] == digests[1] and len(digests[0]) == 17
    assert records(again.root) == records(built.root)
    assert sizes(again.root) == sizes(built.root)
    assert run_keys(again.root) == run_keys(built.root)
    assert objects(again.root) == objects(built.root)
    assert set(again.repro().values()) == {"keep"}
    assert changed(again) == {"resolve"}


def test_what_dvc_recorded_is_kept_and_restored_by_engine_build_and_the_other_way_round(place: Place):
    place.edit("specs/one.toml", "[mixture]", "[evaluation]\nrows = 3\n\n[mixture]")
    done = place.run("engine", "build")
    assert [line.split()[1] for line in done.stderr.splitlines() if line.startswith("run ")] == ["predict-one", "evaluate-one", "score-one"]
    assert set(place.repro().values()) == {"keep"}
    place.edit("specs/one.toml", "rows = 3", "rows = 4")
    assert place.plan()["predict-one"] == "restore"
    done = place.run("engine", "build")
    assert "restored predict-one" in done.stderr and "restored evaluate-one" in done.stderr and "run " not in done.stderr
    assert set(place.plan().values()) == set(place.repro().values()) == {"keep"}
    place.edit("specs/one.toml", "rows = 4", "rows = 3")
    assert place.repro()["predict-one"] == "restore"


def test_a_failed_step_stops_what_follows_and_loses_nothing(place: Place):
    with (place.root / "data/a.jsonl").open("a") as file:
        file.write("no json\n")
    with (place.root / "data/b.jsonl").open("a") as file:
        file.write('{"word": "x", "double": "x x"}\n')
    done = place.run("engine", "build", "--jobs", "2", "split-b", "split-a", check=False)
    assert done.returncode == 1 and "generate-a failed" in done.stderr and "data/a.jsonl:41" in done.stderr
    assert "Traceback" not in done.stderr
    plan = place.plan()
    assert plan["generate-b"] == "keep" and plan["generate-a"] == "run"  # b was running when a failed: it was let finish, and recorded


def test_a_damaged_object_is_noticed_and_rebuilt(place: Place):
    record = parse_lock((place.root / "dvc.lock").read_text())["split-a"]
    tree = dvcfile.parse_tree((place.root / dvcfile.CACHE / dvcfile.object_path(record.outputs["artifacts/split-a"].md5)).read_bytes())
    damaged = place.root / dvcfile.CACHE / dvcfile.object_path(tree["train.jsonl"])
    good = damaged.read_bytes()
    damaged.chmod(0o644)
    damaged.write_bytes(bytes([good[0] ^ 1]) + good[1:])
    damaged.chmod(0o444)
    for path in (place.root / "artifacts/split-a").iterdir():
        path.unlink()
    assert place.plan()["split-a"] == "run"
    place.run("engine", "build", "split-a")
    assert damaged.read_bytes() == good == (place.root / "artifacts/split-a/train.jsonl").read_bytes()
    assert set(place.plan().values()) == {"keep"}


def test_a_second_build_says_who_is_building(place: Place):
    path = place.root / ".dvc/tmp/adapterbuild.lock"
    path.parent.mkdir(exist_ok=True)
    with path.open("w") as file:
        file.write("process 4711, since 12:00:00")
        file.flush()
        fcntl.flock(file, fcntl.LOCK_EX)
        refused = place.run("engine", "build", check=False)
    assert refused.returncode == 1 and "another build is running" in refused.stderr and "process 4711" in refused.stderr


def test_an_unknown_target_is_a_clear_error(place: Place):
    done = place.run("engine", "build", "train-on", check=False)
    assert done.returncode == 1 and "train-on" in done.stderr and "Traceback" not in done.stderr


def test_of_two_builds_at_once_one_is_refused_and_nothing_is_lost(light_place: Place):
    command = [sys.executable, "-m", "engine", "build", *TARGETS]
    both = [subprocess.Popen(command, cwd=light_place.root, env=dvc_environment(), stderr=subprocess.PIPE, text=True) for _ in range(2)]
    errors = [process.communicate()[1] for process in both]
    (refused,) = [error for error in errors if "another build is running" in error]
    assert "Traceback" not in "".join(errors) and "run " not in refused
    assert {light_place.plan(*TARGETS)[name] for name in TARGETS} == {"keep"}
    assert light_place.run("engine", "build", *TARGETS, check=False).stderr.count("run ") == 0
    assert {light_place.repro(*TARGETS)[name] for name in TARGETS} == {"keep"}
