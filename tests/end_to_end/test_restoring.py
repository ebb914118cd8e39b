"""Finished work is restored and never made twice, whoever made it; a rebuild leaves no difference, and merges conflict in specs alone.

The steps that run here, generate and split, need no torch.
"""

import json
import os
import re
import shutil
import socket
import stat
import time
from pathlib import Path

import pytest
import yaml

from engine.dvc import dvcfile, run_records
from engine.dvc.disk import Disk
from engine.dvc.hashing import Hashes
from tests.end_to_end.conftest import ROOT, Place

SPLITS = ("split-a", "split-b")

SPEC = """
[experiment]
name = "{name}"

[model]
name = "tiny-{name}"
architecture = {{ kind = "llama", hidden_size = 16, layers = 1, heads = 2, max_length = 64 }}
tokenizer = {{ vocab_size = 300 }}

[tasks.{task}]
source = {{ kind = "jsonl", path = "data/rows.jsonl" }}
prompts = ["Say {{{{ word }}}}:"]
teacher = {{ kind = "gold", column = "word" }}
max_new_tokens = 4
split = {{ validation = 0.1, test = 0.2 }}

[mixture]
tasks = ["{task}"]

[training]
method = "lora"
steps = 2
learning_rate = 1e-3
"""


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """Two experiments with a task each, whose splits are built and committed: not to be changed."""
    place = Place(tmp_path_factory.mktemp("restoring") / "team")
    place.root.mkdir()
    place.run("engine", "init", ".")
    (place.root / "specs/first.toml").unlink()
    place.write("data/rows.jsonl", "".join(json.dumps({"word": f"w{n}"}) + "\n" for n in range(40)))
    for name, task in (("one", "a"), ("two", "b")):
        place.write(f"specs/{name}.toml", SPEC.format(name=name, task=task))
    place.run("engine", "build", *SPLITS)
    place.commit("built")
    return place


@pytest.fixture
def team(template: Place, tmp_path: Path) -> Place:
    return template.copy_to(tmp_path / "team")


def clone(place: Place, name: str) -> Place:
    """A colleague's fresh clone, in which git merges as in ours."""
    root = place.root.with_name(name)
    place.git("clone", "--quiet", str(place.root), str(root))
    return Place(root)


def shares(place: Place, task: str, test: str, of: str = "0.2") -> None:
    """Edit the split of a task: the line that decides split-TASK."""
    place.edit("specs/one.toml" if task == "a" else "specs/two.toml", f"test = {of} }}", f"test = {test} }}")


def runs(place: Place) -> list[str]:
    return [name for name, action in place.plan(*SPLITS).items() if action in ("run", "maybe") and name != "resolve"]


def restored(place: Place) -> None:
    """Assert that nothing is left to run before and after a build, and that the build runs nothing."""
    assert runs(place) == []
    said = place.run("engine", "build", *SPLITS)
    assert "run      " not in said.stdout + said.stderr, said.stdout + said.stderr
    assert set(place.plan(*SPLITS).values()) == {"keep"}
    for step in SPLITS:
        assert run_records.parse((place.root / f"artifacts/{step}.run.json").read_bytes()), step


def test_a_colleagues_pushed_run_is_restored_after_the_same_edit(team: Place, tmp_path: Path):
    team.run("dvc", "remote", "add", "--default", "far", str(tmp_path / "remote"))
    team.commit("remote")
    other = clone(team, "other")
    team.run("dvc", "push", "--run-cache")
    shares(team, "a", "0.3")
    team.run("engine", "build", *SPLITS)
    team.run("dvc", "push", "--run-cache")
    other.run("dvc", "pull", "--run-cache", *SPLITS, check=False)
    shares(other, "a", "0.3")
    restored(other)
    for name in ("dvc.lock", "metrics/split-a.json", "artifacts/split-a.provenance.json", "artifacts/split-a.run.json"):
        assert (other.root / name).read_bytes() == (team.root / name).read_bytes(), name


def test_a_fresh_clone_on_a_shared_cache_restores_everything_and_leaves_no_difference(team: Place, tmp_path: Path):
    shared = tmp_path / "cache"
    (team.root / ".dvc/cache").rename(shared)
    team.run("dvc", "cache", "dir", str(shared))
    team.commit("shared cache")
    other = clone(team, "other")
    restored(other)
    assert other.git("status", "--porcelain") == ""


def test_an_older_intact_run_is_restored_where_the_newest_is_broken(team: Place):
    record = Disk(team.root, Hashes(team.root)).record("split-a")
    assert record
    broken = dvcfile.Record(record.command, record.dependencies, {path: dvcfile.Entry("0" * 32) for path in record.outputs})
    key = dvcfile.run_key(record.command, record.dependencies, record.outputs)
    path = team.root / dvcfile.CACHE / dvcfile.run_folder(key) / dvcfile.run_value(broken)
    path.write_text(dvcfile.run_text(broken))
    shutil.rmtree(team.root / "artifacts/split-a")
    shares(team, "a", "0.3")
    team.run("engine", "build", *SPLITS)
    shares(team, "a", "0.2", of="0.3")
    os.utime(path)
    said = team.run("engine", "plan", "--json", "--dvc", *SPLITS, check=False).stdout
    assert {step["name"]: step["action"] for step in json.loads(said)["steps"]}["split-a"] == "run"
    restored(team)
    # The restored run is the newest again, so that DVC finds it too.
    (team.root / "dvc.lock").unlink()
    assert team.repro("split-a")["split-a"] == "restore"


@pytest.mark.parametrize("lost", ["artifacts/split-a", "artifacts/split-a.provenance.json", "metrics/split-a.json"])
def test_an_absent_output_whose_object_is_in_the_cache_is_restored(team: Place, lost: str):
    path = team.root / lost
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    restored(team)
    assert team.git("status", "--porcelain") == ""


def test_metrics_that_no_remote_holds_come_out_of_the_statement(team: Place):
    record = Disk(team.root, Hashes(team.root)).record("split-a")
    assert record
    (team.root / dvcfile.CACHE / dvcfile.object_path(record.outputs["metrics/split-a.json"].md5)).unlink()
    before = (team.root / "metrics/split-a.json").read_bytes()
    (team.root / "metrics/split-a.json").unlink()
    restored(team)
    assert (team.root / "metrics/split-a.json").read_bytes() == before


def test_two_clones_that_build_side_by_side_differ_in_nothing_that_git_sees(team: Place):
    clones = [clone(team, name) for name in ("left", "right")]
    for place in clones:
        for folder in ("metrics", "plots"):
            shutil.rmtree(place.root / folder, ignore_errors=True)
        (place.root / "dvc.lock").unlink()
        place.run("engine", "build", *(SPLITS if place is clones[0] else reversed(SPLITS)))
        assert place.git("status", "--porcelain") == ""
    third = clone(team, "third")
    (third.root / "dvc.lock").unlink()
    third.repro(*SPLITS)
    steps = dvcfile.parse_lock((team.root / "dvc.lock").read_bytes())
    assert dvcfile.parse_lock((third.root / "dvc.lock").read_bytes()) == steps
    third.run("engine", "build", *SPLITS)
    assert third.git("status", "--porcelain") == ""


def branches(team: Place, ours: tuple[str, str], theirs: tuple[str, str]) -> None:
    """Build OURS (task, share of test) on the present branch, THEIRS on another one that starts there."""
    base = team.git("branch", "--show-current").strip()
    team.git("checkout", "--quiet", "-b", "theirs")
    shares(team, *theirs)
    team.run("engine", "build", *SPLITS)
    team.commit("theirs")
    team.git("checkout", "--quiet", base)
    shares(team, *ours)
    team.run("engine", "build", *SPLITS)
    team.commit("ours")


@pytest.mark.parametrize("driver", [True, False], ids=["driver", "lines"])
def test_branches_with_different_experiments_merge_without_a_conflict(team: Place, driver: bool):
    if not driver:
        team.git("config", "--unset", "merge.adapterbuild.driver")
        team.write(".gitattributes", "")
        team.commit("no driver")
    branches(team, ("a", "0.3"), ("b", "0.4"))
    team.git("merge", "--quiet", "--no-edit", "theirs")
    assert set(team.plan(*SPLITS).values()) <= {"keep", "restore"} or runs(team) == []
    restored(team)
    assert team.git("status", "--porcelain") == ""


def test_new_experiments_on_both_sides_merge_without_a_conflict(team: Place):
    base = team.git("branch", "--show-current").strip()
    for branch, name, task in (("theirs", "three", "c"), (base, "four", "d")):
        team.git("checkout", "--quiet", *(["-b", branch] if branch != base else [base]))
        team.write(f"specs/{name}.toml", SPEC.format(name=name, task=task))
        team.run("engine", "build", f"split-{task}")
        team.commit(name)
    team.git("merge", "--quiet", "--no-edit", "theirs")
    assert team.plan("split-a", "split-b", "split-c", "split-d").keys() >= {"split-c", "split-d"}
    said = team.run("engine", "build", "split-a", "split-b", "split-c", "split-d")
    assert "run      " not in said.stdout + said.stderr
    assert team.git("status", "--porcelain") == ""


def test_the_identical_edit_on_both_sides_conflicts_nowhere(team: Place):
    branches(team, ("a", "0.3"), ("a", "0.3"))
    team.git("merge", "--quiet", "--no-edit", "theirs")
    restored(team)


def test_edits_of_one_line_conflict_in_that_spec_alone_and_either_choice_is_restored(team: Place):
    branches(team, ("a", "0.3"), ("a", "0.4"))
    with pytest.raises(Exception, match="exit status 1"):
        team.git("merge", "--quiet", "--no-edit", "theirs")
    assert team.git("diff", "--name-only", "--diff-filter=U").split() == ["specs/one.toml"]
    team.git("checkout", "--theirs", "specs/one.toml")
    restored(team)


def test_a_lock_with_conflict_marks_is_read_and_mended_with_the_records_of_both_sides(team: Place):
    team.write(".gitattributes", "")
    team.commit("no driver")
    branches(team, ("a", "0.3"), ("a", "0.4"))
    with pytest.raises(Exception, match="exit status 1"):
        team.git("merge", "--quiet", "--no-edit", "theirs")
    assert "dvc.lock" in team.git("diff", "--name-only", "--diff-filter=U").split()
    team.git("checkout", "--theirs", "specs/one.toml")
    lock = (team.root / "dvc.lock").read_bytes()
    planned = team.run("engine", "plan", *SPLITS, check=False)
    assert "dvc.lock has merge conflicts" in planned.stderr and (team.root / "dvc.lock").read_bytes() == lock
    said = team.run("engine", "build", *SPLITS)
    assert "resolved merge conflicts in dvc.lock" in said.stderr and "split-a" in said.stderr
    assert b"<<<<<<<" not in (team.root / "dvc.lock").read_bytes()
    restored(team)


@pytest.mark.parametrize("link", ["copy", "hardlink", "symlink"])
def test_links_and_permissions_are_those_that_dvc_makes(team: Place, link: str, tmp_path: Path):
    """The same workspace built by `engine build` and by `dvc repro`, compared file by file."""

    def look(place: Place) -> dict[str, tuple[bool, bool, int]]:
        paths = [
            *(place.root / "artifacts/split-a").iterdir(),
            place.root / "artifacts/split-a.provenance.json",
            place.root / "metrics/split-a.json",
        ]
        return {p.name: (p.is_symlink(), p.stat().st_nlink > 1, stat.S_IMODE(p.stat().st_mode)) for p in paths}

    def folders(place: Place) -> set[int]:
        return {stat.S_IMODE(path.stat().st_mode) for path in (place.root / ".dvc/cache").rglob("*") if path.is_dir()}

    found = []
    for name, command in (("ours", ("engine", "build", "split-a")), ("dvcs", ("dvc", "repro", "split-a"))):
        place = clone(team, name)
        place.run("dvc", "config", "cache.type", link)
        place.run("dvc", "config", "cache.shared", "group")
        (place.root / "dvc.lock").unlink()
        place.run("engine", "compile")
        place.run(*command)
        made = look(place), folders(place)
        shutil.rmtree(place.root / "artifacts/split-a")
        place.run(*command)
        # DVC restores what git tracks as links, which the next run makes files of their own.
        place.run(*command)
        found.append((*made, look(place)))
    assert found[0] == found[1]


def test_a_cache_setting_that_dvc_does_not_know_is_refused(team: Place):
    (team.root / ".dvc/config").write_text("[cache]\n    type = hardlinks\n")
    said = team.run("engine", "plan", check=False)
    assert said.returncode == 1 and "cache.type must be a list of reflink, hardlink, symlink, copy, got 'hardlinks'" in said.stderr


def test_the_doctor_names_what_is_wrong_and_compiling_mends_the_driver(team: Place):
    assert team.run("engine", "doctor").returncode == 0
    other = clone(team, "other")
    sick = other.run("engine", "doctor", check=False)
    assert sick.returncode == 1 and "engine compile" in sick.stdout
    assert "merge.adapterbuild" in other.run("engine", "compile").stderr
    assert other.run("engine", "doctor").returncode == 0 and "merge.adapterbuild" not in other.run("engine", "compile").stderr


def pushed(team: Place, url: str, *settings: tuple[str, str]) -> Place:
    """A colleague's clone after an edit that TEAM has made, built and pushed too; nothing was pulled there."""
    team.run("dvc", "remote", "add", "--default", "far", url)
    for name, value in settings:
        team.run("dvc", "remote", "modify", "far", name, value)
    team.commit("remote")
    other = clone(team, "other")
    shares(team, "a", "0.3")
    team.run("engine", "build", *SPLITS)
    team.run("dvc", "push", "--run-cache")
    shares(other, "a", "0.3")
    return other


def brought(team: Place, other: Place) -> None:
    """Assert that a build with `--pull` restores everything there, to the byte."""
    assert runs(other) != []
    said = other.run("engine", "build", "--pull", *SPLITS)
    assert "run      " not in said.stdout + said.stderr and "warning" not in said.stderr, said.stderr
    for name in ("dvc.lock", "metrics/split-a.json", "artifacts/split-a.provenance.json", "artifacts/split-a.run.json"):
        assert (other.root / name).read_bytes() == (team.root / name).read_bytes(), name
    restored(other)


def test_a_build_with_pull_restores_what_a_remote_folder_has(team: Place, tmp_path: Path):
    brought(team, pushed(team, str(tmp_path / "remote")))


def test_a_build_with_pull_restores_what_a_bucket_has(team: Place, monkeypatch: pytest.MonkeyPatch):
    """A real `dvc push` to a real server of the protocol, on loopback."""
    pytest.importorskip("dvc_s3", reason="dvc-s3 is not installed")
    server = pytest.importorskip("moto.server", reason="moto's server is not installed").ThreadedMotoServer("127.0.0.1", 0)
    import boto3

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    server.start()
    try:
        url = "http://{}:{}".format(*server.get_host_and_port())
        boto3.client("s3", endpoint_url=url).create_bucket(Bucket="work")
        brought(team, pushed(team, "s3://work/dvc", ("endpointurl", url)))
    finally:
        server.stop()


def checks(ci: str) -> list[str]:
    """The commands of ours among those that `engine init --ci` writes for a code host."""
    content = yaml.safe_load((ROOT / f"engine/setup/{ci}.yml").read_text("utf-8"))
    lines = (
        content["adapterbuild"]["script"] if ci == "gitlab" else [one["run"] for one in content["jobs"]["specs"]["steps"] if "run" in one]
    )
    return [line for line in lines if line.startswith("engine ") and not line.startswith("engine diff")]


def test_a_code_host_passes_what_is_built_and_pushed_and_refuses_what_is_not(team: Place, tmp_path: Path):
    assert checks("github") == checks("gitlab") and len(checks("github")) == 3
    team.run("dvc", "remote", "add", "--default", "far", str(tmp_path / "remote"))
    (tmp_path / "remote").mkdir()
    assert "new files: .github/workflows/adapterbuild.yml" in team.run("engine", "init", ".", "--ci", "github").stderr
    again = team.run("engine", "init", ".", "--ci", "github", check=False)
    assert again.returncode == 1 and ".github/workflows/adapterbuild.yml exists already" in again.stderr
    shares(team, "a", "0.3")
    team.run("engine", "build", *SPLITS)

    def passed(name: str) -> tuple[bool, str]:
        """Whether a clone of the last commit passes the checks; the trainings of this workspace are never built."""
        team.commit(name)
        host = clone(team, name)
        for command in checks("github"):
            targets = SPLITS if "plan" in command else ()
            done = host.run(*command.split(), *targets, check=False)
            if done.returncode:
                return False, done.stderr
        return True, ""

    unpushed = passed("unpushed")[1]
    assert unpushed.startswith("error: not built: generate-a, split-a, generate-b, split-b\n  hint: build and push them"), unpushed
    team.run("engine", "push", *SPLITS)
    assert passed("pushed")[0], passed("why")[1]
    shares(team, "a", "0.25", of="0.3")
    refused, why = passed("edited")
    assert not refused and "error: params.yaml is out of date" in why
    team.run("engine", "compile")
    assert "not built: split-a" in passed("compiled")[1]
    told = team.run("engine", "diff", "HEAD~2", "HEAD", "--markdown").stdout
    assert re.search(r"^- recipe .*split-a.* 0.3 → 0.25", told, re.MULTILINE), told


def test_a_run_whose_objects_a_remote_has_lost_is_run(team: Place, tmp_path: Path):
    other = pushed(team, str(tmp_path / "remote"))
    for path in (tmp_path / "remote/files/md5").rglob("*"):
        if path.is_file() and path.suffix != ".dir":
            path.chmod(0o644)
            path.write_bytes(b"damaged")
    said = other.run("engine", "build", "--pull", *SPLITS).stderr
    pattern = r"warning: (\S+): the store has a run of it, but (files/md5/\S+) is damaged there, so it runs again; .*engine push"
    told = re.findall(pattern, said)
    # A step that the clone has built anew is no miss of the store.
    assert sorted(name for name, _ in told) == ["generate-a", "generate-b", "split-a", "split-b"], said
    assert all((tmp_path / "remote" / path).read_bytes() == b"damaged" for _, path in told)
    assert set(other.plan(*SPLITS).values()) == {"keep"}
    assert (other.root / "metrics/split-a.json").read_bytes() == (team.root / "metrics/split-a.json").read_bytes()


@pytest.mark.parametrize("remote", ["none", "gone", "http", "nobody there", "silent", "not installed"])
def test_a_remote_that_cannot_be_asked_is_told_once_and_the_build_goes_on(team: Place, remote: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("ADAPTERBUILD_REMOTE_TIMEOUT", "12")
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port = listening.getsockname()[1]
        if remote == "silent":
            listening.listen(64)  # connections are taken, and nothing is answered
        urls = {"gone": str(team.root / "gone"), "http": "http://127.0.0.1:9/dvc", "not installed": "gs://bucket/dvc"}
        if remote in ("nobody there", "silent"):
            pytest.importorskip("dvc_s3", reason="dvc-s3 is not installed")
            for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
                monkeypatch.setenv(name, "testing")
            urls[remote] = "s3://work/dvc"
        if remote in urls:
            team.run("dvc", "remote", "add", "--default", "far", urls[remote])
        if remote in ("nobody there", "silent"):
            team.run("dvc", "remote", "modify", "far", "endpointurl", f"http://127.0.0.1:{port if remote == 'silent' else 9}")
        shares(team, "a", "0.3")
        shares(team, "b", "0.4")
        before = time.monotonic()
        said = team.run("engine", "build", "--pull", *SPLITS)
    assert said.stderr.count("DVC's remote cannot be read") == 1, said.stderr
    assert time.monotonic() - before < 60 and "Traceback" not in said.stderr
    assert set(team.plan(*SPLITS).values()) == {"keep"}
