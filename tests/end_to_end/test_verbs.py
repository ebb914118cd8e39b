"""`why`, `diff`, `accept` and `gc` in a real workspace, and what plain DVC says afterwards."""

import fcntl
import json
import shutil
import subprocess
from pathlib import Path

import pytest

from engine.dvc import dvcfile, run_records
from engine.dvc.dvcfile import parse_lock
from engine.identity.provenance import parse
from tests.end_to_end.conftest import Place, address, as_artifact, told

pytestmark = pytest.mark.slow

METRIC = "stages/evaluate/metrics/exact_match.py"


@pytest.fixture(scope="module")
def branches(built: Place, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """Two branches with other ranks of one adapter, both built, and a third rank that no branch has: not to be changed."""
    place = built.copy_to(tmp_path_factory.mktemp("branches") / "workspace")
    (place.root / "finished").unlink()
    place.git("branch", "--move", "main")
    place.edit("specs/one.toml", "[mixture]", '[training]\nmethod = { kind = "lora", r = 8, lora_alpha = 4 }\n\n[mixture]')
    place.run("engine", "build", "train-one")
    place.git("checkout", "--quiet", "-b", "rank-4")
    place.edit("specs/one.toml", "r = 8", "r = 4")
    place.run("engine", "build", "score-one")
    place.commit("rank 4")
    place.git("checkout", "--quiet", "main")
    place.run("dvc", "checkout")
    place.run("engine", "build")
    return place


@pytest.fixture
def branched(branches: Place, tmp_path: Path) -> Place:
    return branches.copy_to(tmp_path / "workspace")


def data(place: Place, *command: str) -> dict:
    return json.loads(place.run("engine", *command, "--json").stdout)


def cached(root: Path) -> dict[str, int]:
    """Bytes of every object of the cache."""
    return {path.parent.name + path.name: path.stat().st_size for path in (root / dvcfile.CACHE / "files/md5").glob("*/*")}


def named(root: Path) -> set[str]:
    """Everything that `dvc.lock` names as an output and the cache holds, folders with their files."""
    records = parse_lock((root / "dvc.lock").read_bytes())
    found = {entry.md5 for record in records.values() for entry in record.outputs.values()}
    trees = [root / dvcfile.CACHE / dvcfile.object_path(md5) for md5 in found if md5.endswith(".dir")]
    return found | {md5 for path in trees for md5 in dvcfile.parse_tree(path.read_bytes()).values()}


def test_why_goes_up_to_the_line_of_the_spec(place: Place):
    place.edit("specs/parts/common.toml", "Say {{ word }}:", "Tell {{ word }}:")
    shown = place.run("engine", "why", "evaluate-one").stdout
    assert "evaluate-one: maybe" in shown and "    generate-a: run" in shown and shown.count("generate-a: run") == 1
    assert "generate-b" not in shown and "initialize-toy" not in shown
    assert "root cause: generate-a: prompts.0  Say {{ word }}: → Tell {{ word }}: (specs/parts/common.toml:9" in shown.splitlines()[-1]
    assert data(place, "why", "evaluate-one")["root_causes"][0]["steps"] == ["generate-a"]
    assert "generate-b is up to date" in place.run("engine", "why", "generate-b").stdout
    assert "specs, code or versions changed" in place.run("engine", "why", "resolve").stdout
    wrong = place.run("engine", "why", "evaluate-on", check=False)
    assert wrong.returncode == 1 and "did you mean 'evaluate-one'" in wrong.stderr and "Traceback" not in wrong.stderr


def test_diff_of_two_branches_names_rank_adapter_and_metrics(branched: Place):
    place = branched
    found = data(place, "diff", "main", "rank-4")
    assert [(c["step"], c["subject"], c["old"], c["new"]) for c in found["recipes"]] == [("train-one", "method.r", 2, 4)]
    assert found["steps"] == {"added": [], "removed": []}
    assert {"train-one"} <= {c["step"] for c in found["artifacts"]} <= {"train-one", "predict-one", "evaluate-one", "score-one"}
    (adapter,) = found["adapters"]
    now = address(place.root / "artifacts/train-one.provenance.json")
    assert adapter["old"] == now != adapter["new"] and adapter["new"].startswith("sha256:")
    changed = {(c["step"], c["subject"]): c for c in found["metrics"]}
    parameters = changed["train-one", "trainable_parameters"]
    assert parameters["difference"] == parameters["new"] - parameters["old"] == parameters["old"]
    shown = place.run("engine", "diff", "main", "rank-4").stdout
    assert "recipe    train-one  method.r  2 → 4" in shown and now[7:19] in shown and "trainable_parameters" in shown
    # The working tree is that of main; an edit shows before anything is compiled or built.
    assert "no differences" in place.run("engine", "diff", "main").stdout
    place.edit("specs/one.toml", "[mixture]", '[training]\nmethod = { kind = "lora", r = 6, lora_alpha = 4 }\n\n[mixture]')
    assert [(c["old"], c["new"]) for c in data(place, "diff", "rank-4")["recipes"]] == [(4, 6)]


def test_diff_says_what_it_cannot_know(branched: Place):
    place = branched
    lock = parse_lock(place.git("show", "rank-4:dvc.lock"))
    provenance = place.root / dvcfile.CACHE / dvcfile.object_path(lock["train-one"].outputs["artifacts/train-one.provenance.json"].md5)
    provenance.unlink()
    assert data(place, "diff", "rank-4")["adapters"][0]["old"] == "not in the cache"
    first = place.git("rev-list", "--max-parents=0", "HEAD").strip()
    assert "missing in " + first + ": dvc.lock" in place.run("engine", "diff", first).stdout
    for command in (["diff", "rank-5"], ["diff", "main", "v1"]):
        wrong = place.run("engine", *command, check=False)
        assert wrong.returncode == 1 and "unknown git revision" in wrong.stderr and "Traceback" not in wrong.stderr
    shutil.rmtree(place.root / ".git")
    wrong = place.run("engine", "diff", "main", check=False)
    assert wrong.returncode == 1 and "is not in a git repository" in wrong.stderr


@pytest.mark.long
def test_adapters_of_a_branch_and_of_the_cache_alone_are_listed_and_fetched(branched: Place):
    place = branched
    now = [one["digest"] for one in data(place, "adapters")["adapters"]]
    found = data(place, "adapters", "--all")["adapters"]
    past = [one for one in found if one["state"] == "past"]
    assert [one["digest"] for one in found][: len(now)] == now and len(past) == 2, "rank 4 of the branch, rank 8 that nothing names"
    assert {(one["step"], one["method"], one["base"], one["in_cache"]) for one in past} == {("train-one", "lora", "initialize-toy", True)}
    ranks = set()
    for number, one in enumerate(found):
        folder = f"out/{number}"
        assert data(place, "adapters", "--fetch", one["digest"][7:19], "--output", folder)["digest"] == one["digest"]
        assert (
            as_artifact(place.root / folder, place.root / f"{folder}.artifact")
            == one["digest"]
            == address(place.root / f"{folder}.provenance.json")
        )
        ranks.add(json.loads((place.root / folder / "adapter_config.json").read_text())["r"])
    assert ranks == {2, 4, 8}
    (two,) = data(place, "adapters", "--all", "--step", "train-t*", "--digest", now[1][:15])["adapters"]
    assert two["step"] == "train-two" and two["current"]


def run_of(place: Place, step: str) -> run_records.RunRecord:
    """The record of the run that made what STEP has now."""
    found = run_records.parse((place.root / f"artifacts/{step}.run.json").read_bytes())
    assert found, f"{step} has no run record"
    return found


def test_accepted_code_is_kept_by_the_plan_and_by_dvc(place: Place):
    before = {
        name: (place.root / "artifacts" / name).read_bytes() for name in ("evaluate-one.provenance.json", "train-one.provenance.json")
    }
    place.edit(METRIC, "reference.strip()", "reference.strip().strip()")
    assert place.plan()["evaluate-one"] == "run"
    done = place.run("engine", "accept", "evaluate-one", "evaluate-two", "train-one")
    assert "evaluate-one is kept: code of stages.evaluate.metrics.exact_match changed" in done.stderr
    assert "train-one is up to date: nothing to accept" in done.stderr
    assert set(place.plan().values()) == {"keep"}
    assert set(place.repro().values()) == {"keep"}
    assert (place.root / "artifacts/evaluate-one.provenance.json").read_bytes() == before["evaluate-one.provenance.json"]
    (accepted,) = run_of(place, "evaluate-one").accepted
    assert accepted["from"] == told(place.root / "artifacts/evaluate-one.provenance.json").identity != accepted["to"]
    assert accepted["reasons"] == ["code of stages.evaluate.metrics.exact_match changed"]
    assert accepted["git_commit"] == place.git("rev-parse", "HEAD").strip() and accepted["time"].endswith("+00:00")
    assert (place.root / "artifacts/train-one.provenance.json").read_bytes() == before["train-one.provenance.json"]
    # The run cache has it too: a workspace that lost its records restores it.
    place.git("checkout", "dvc.lock")
    assert place.plan()["evaluate-one"] == "restore" and place.repro()["evaluate-one"] == "restore"
    # The old code gives the old identity, whose run is still in the cache.
    place.git("checkout", METRIC)
    assert place.plan()["evaluate-one"] == "restore"


@pytest.mark.long
def test_accepting_above_keeps_everything_below_and_a_linked_cache_whole(place: Place):
    place.run("dvc", "config", "cache.type", "hardlink")
    place.run("dvc", "checkout", "--relink")
    provenance = place.root / "artifacts/train-one.provenance.json"
    md5 = parse_lock((place.root / "dvc.lock").read_bytes())["train-one"].outputs["artifacts/train-one.provenance.json"].md5
    assert provenance.stat().st_nlink == 2
    place.edit("stages/train/loop/schedule.py", "\n\n\n", "\n\n\nUNUSED = 1\n\n\n")
    plan = place.plan()
    assert (plan["train-one"], plan["predict-one"], plan["evaluate-one"]) == ("run", "maybe", "maybe")
    refused = place.run("engine", "accept", "predict-one", check=False)
    assert refused.returncode == 1 and "depends on train-one" in refused.stderr
    place.run("engine", "accept", "train-one", "train-two")
    assert len(run_of(place, "train-one").accepted) == 1
    assert dvcfile.text_md5((place.root / dvcfile.CACHE / dvcfile.object_path(md5)).read_text()) == md5
    assert set(place.plan().values()) == {"keep"}
    assert set(place.repro().values()) == {"keep"}
    # Accepted again for another change: both are on record.
    place.edit("stages/train/loop/schedule.py", "UNUSED = 1", "UNUSED = 2")
    assert len(data(place, "accept", "train-one")["accepted"]) == 1
    assert len(run_of(place, "train-one").accepted) == 2


def test_a_recipe_is_not_accepted_and_nothing_is_written(place: Place):
    place.edit(METRIC, "reference.strip()", "reference.strip().strip()")
    place.edit("specs/one.toml", "[mixture]", "[evaluation]\nrows = 3\n\n[mixture]")
    place.commit("edited")
    before = {path: path.read_bytes() for path in (place.root / "artifacts").rglob("*") if path.is_file()}
    refused = place.run("engine", "accept", "evaluate-two", "predict-one", check=False)
    assert refused.returncode == 1 and "predict-one cannot be accepted: rows  4 → 3" in refused.stderr and "Traceback" not in refused.stderr
    assert {path: path.read_bytes() for path in (place.root / "artifacts").rglob("*") if path.is_file()} == before
    assert place.git("status", "--porcelain") == ""
    wrong = place.run("engine", "accept", "evaluate-thre", check=False)
    assert wrong.returncode == 1 and "unknown step 'evaluate-thre'" in wrong.stderr


def test_gc_keeps_both_branches_and_removes_what_neither_names(branched: Place):
    place = branched
    before = cached(place.root)
    lost = parse_lock(place.git("show", "rank-4:dvc.lock"))
    dry = data(place, "gc")
    assert cached(place.root) == before and dry["removed"] is False
    goes = next(group for group in dry["groups"] if group["group"] == "cache objects")
    assert goes["paths"] and next(group for group in dry["groups"] if group["group"] == "run-cache entries")["paths"]
    said = subprocess.run(["du", "--bytes", "--total", *goes["paths"]], cwd=place.root, capture_output=True, text=True, check=True).stdout
    done = data(place, "gc", "--force")
    assert done["freed_bytes"] == dry["freed_bytes"] and done["groups"] == dry["groups"]
    after = cached(place.root)
    assert sum(before.values()) - sum(after.values()) == goes["bytes"] == int(said.splitlines()[-1].split()[0])
    assert named(place.root) <= set(after)
    assert set(place.plan().values()) == {"keep"}
    # Rank 8 was built and committed nowhere: gone for good.
    assert len([path for path in goes["paths"] if path.endswith(".dir")]) >= 1
    place.git("checkout", "--quiet", "rank-4")
    assert named(place.root) <= set(cached(place.root))
    assert place.plan()["train-one"] in ("restore", "keep")
    place.run("dvc", "checkout")
    assert set(place.repro().values()) == {"keep"}
    assert parse_lock((place.root / "dvc.lock").read_bytes()) == lost
    assert json.loads(place.run("engine", "gc", "--json").stdout)["freed_files"] == 0


def test_gc_keeps_an_adapter_by_its_address(branched: Place):
    place = branched
    runs = [dvcfile.parse_record(path.read_bytes()) for path in (place.root / dvcfile.CACHE / "runs").glob("*/*/*")]
    trained = [run for run in runs if run.command.endswith("train-one")]
    addresses = {}
    for run in trained:
        content = (place.root / dvcfile.CACHE / dvcfile.object_path(run.outputs["artifacts/train-one.provenance.json"].md5)).read_bytes()
        found = parse(content)
        assert found
        addresses[found.recipe["method"]["r"]] = found.digest
    assert set(addresses) == {2, 4, 8}
    wrong = place.run("engine", "gc", "--force", "--keep", "sha256:" + "0" * 64, check=False)
    assert wrong.returncode == 1 and "no artifact in the cache has the content address" in wrong.stderr
    place.run("engine", "gc", "--force", "--keep", addresses[8][7:19])
    place.edit("specs/one.toml", "[mixture]", '[training]\nmethod = { kind = "lora", r = 8, lora_alpha = 4 }\n\n[mixture]')
    assert place.plan()["train-one"] == "restore" == place.repro()["train-one"]


def test_gc_tips_forgets_what_only_history_has(branched: Place):
    place = branched
    place.git("merge", "--quiet", "--strategy", "ours", "rank-4", "--message", "merged")
    place.git("branch", "--delete", "rank-4")
    goes = {tips: data(place, "gc", *tips)["freed_bytes"] for tips in ((), ("--tips",))}
    assert goes["--tips",] > goes[()] > 0
    shown = place.run("engine", "gc", "--tips").stdout
    assert f"would free {goes['--tips',]:,} bytes" in shown and "nothing was removed" in shown
    assert "contradict" in place.run("engine", "gc", "--force", "--dry-run", check=False).stderr


def test_gc_keeps_checkpoints_that_the_next_build_goes_on_from(place: Place):
    good = (place.root / "data/a.jsonl").read_text()
    with (place.root / "data/a.jsonl").open("a") as file:
        file.write("no json\n")
    assert place.run("engine", "build", "split-a", check=False).returncode == 1
    (left,) = (place.root / "artifacts/scratch").iterdir()
    (left / "checkpoint").write_text("half")
    unknown = "train-one-0123456789ab"  # what it would read is not known before generate-a has run
    stale = (
        "scratch/generate-a-0123456789ab/x",
        "scratch/generate-b-0123456789ab/x",
        "scratch/odd",
        ".train-one.tmp/x",
        ".mix-one.restored/x",
    )
    for name in (*stale, f"scratch/{unknown}/x"):
        (place.root / "artifacts" / name).parent.mkdir(parents=True, exist_ok=True)
        (place.root / "artifacts" / name).write_text("12345")
    outside = place.root.parent / "outside"
    outside.mkdir()
    (outside / "precious").write_text("x")
    (place.root / "artifacts/scratch/link").symlink_to(outside)
    found = data(place, "gc", "--force")
    assert found["resumable"] == [left.name, unknown] and (left / "checkpoint").exists()
    assert (outside / "precious").exists()
    assert sorted(path.name for path in (place.root / "artifacts/scratch").iterdir()) == [left.name, unknown]
    assert not list((place.root / "artifacts").glob(".*"))
    (place.root / "data/a.jsonl").write_text(good)
    assert set(place.plan().values()) == {"keep"}
    place.run("engine", "gc", "--force")
    assert not left.exists() and set(place.repro().values()) == {"keep"}


@pytest.mark.parametrize("lock", ["adapterbuild.lock", "adapterbuild/train-one.lock"])
@pytest.mark.parametrize("command", [["gc"], ["gc", "--force"], ["accept", "train-one"]], ids=" ".join)
def test_nothing_is_removed_or_accepted_while_something_is_built(place: Place, lock: str, command: list[str]):
    if command[0] == "accept" and "/" in lock:
        pytest.skip("accepting writes nothing that a step reads")
    path = place.root / ".dvc/tmp" / lock
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        refused = place.run("engine", *command, check=False)
    assert refused.returncode == 1 and "Traceback" not in refused.stderr
    assert "another build is running" in refused.stderr or "train-one is being built" in refused.stderr
