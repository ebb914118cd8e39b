"""The README's digests: read from its table, and those that this code builds."""

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from benchmarks.quickstart import NUMERICS, README, built, stated, verdict
from engine.build.driver import dvc_environment

ROOT = Path(__file__).parents[1]
IDENTITIES = "artifacts/identity/"
CPU = Path("/proc/cpuinfo").read_text("utf-8") if Path("/proc/cpuinfo").exists() else ""


@pytest.mark.parametrize("page", [README, NUMERICS])
def test_every_experiment_of_the_quickstart_has_a_digest(page: str):
    names = {path.stem for path in (ROOT / "specs").glob("*.toml")}
    assert stated(page).keys() == names and len(set(stated(page).values())) == len(names)


@pytest.mark.parametrize("page", [README, NUMERICS])
def test_a_page_without_a_table_is_an_error(page: str):
    with pytest.raises(ValueError, match=f"{page} has no table"):
        stated(page, "# nothing")


def test_the_verdict_names_each_digest_that_differs():
    readme, intel = {"base": "a" * 12, "topic": "b" * 12}, {"base": "d" * 12, "topic": "e" * 12}
    assert verdict(readme, intel, readme) == "digests: all 2 are those of the README"
    assert verdict(readme, intel, intel).startswith("digests: all 2 are those of Intel processors (docs/reference/numerics.md)")
    told = verdict(readme, intel, {"base": "a" * 12, "topic": "c" * 12}).splitlines()
    assert told[0] == "digests: 1 of 2 are not those of the README" and told[1] == "  topic: cccccccccccc, the README has bbbbbbbbbbbb"
    assert "topic: not built" in verdict(readme, intel, {"base": "a" * 12})


def test_the_committed_lock_is_that_of_the_code_so_that_a_rebuild_leaves_no_diff(tmp_path: Path):
    """Identities of every step, as a build writes them, have the digests that `dvc.lock` records."""
    shutil.copytree(ROOT / "specs", tmp_path / "specs")
    for name in ("pyproject.toml", "requirements.lock", "dvc.yaml", "params.yaml"):
        shutil.copy(ROOT / name, tmp_path)
    for command in (["git", "init", "--quiet"], ["dvc", "init", "--quiet"], [sys.executable, "-m", "engine", "resolve"]):
        subprocess.run(command, cwd=tmp_path, env=dvc_environment() | {"PYTHONPATH": str(ROOT)}, check=True)
    lock = yaml.safe_load((ROOT / "dvc.lock").read_text("utf-8"))["stages"]
    recorded = {dep["path"]: dep["md5"] for stage in lock.values() for dep in stage.get("deps", ()) if dep["path"].startswith(IDENTITIES)}
    written = {f"{IDENTITIES}{path.name}": hashlib.md5(path.read_bytes()).hexdigest() for path in (tmp_path / IDENTITIES).glob("*.json")}
    assert recorded == written


@pytest.mark.slow
def test_dvcs_commands_fit_a_terminal_of_120_columns_on_the_quickstarts_graph(tmp_path: Path):
    """The committed files of all experiments, and a commit in which every headline number of one and a value of its recipe differ."""
    for name in ("specs", "metrics", "plots"):
        shutil.copytree(ROOT / name, tmp_path / name)
    for name in ("pyproject.toml", "requirements.lock", "dvc.yaml", "dvc.lock", "params.yaml"):
        shutil.copy(ROOT / name, tmp_path)
    environment = dvc_environment() | {"COLUMNS": "120", "DVC_NO_ANALYTICS": "1"}

    def run(*command: str) -> str:
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
        assert command[0] != "dvc" or not done.stderr, (command, done.stderr)
        return done.stdout

    def commit(message: str) -> None:
        run("git", "add", "--all")
        run("git", "-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "--quiet", "--message", message)

    def rows(*command: str) -> list[list[str]]:
        lines = run(*command).splitlines()
        assert lines and max(map(len, lines)) <= 120, command
        return [line.split() for line in lines if line]

    run("git", "init", "--quiet")
    run("dvc", "init", "--quiet")
    commit("as it is")
    headlines = tmp_path / "metrics/experiments/topic.json"
    values = json.loads(headlines.read_text("utf-8"))
    headlines.write_text(json.dumps({name: value * 0.9 for name, value in values.items()}))
    before, step, after = (tmp_path / "params.yaml").read_text("utf-8").partition("\ntrain-topic:\n")
    (tmp_path / "params.yaml").write_text(f"{before}{step}{after.replace('  learning_rate: 0.004', '  learning_rate: 0.003', 1)}")
    commit("another learning rate")

    names = sorted(path.stem for path in (tmp_path / "metrics/experiments").glob("*.json"))
    shown = rows("dvc", "metrics", "show")
    assert [line[0] for line in shown[1:]] == [f"metrics/experiments/{name}.json" for name in names] and len(names) == 5
    assert set(shown[0][1:]) == values.keys()
    changed = [["metrics/experiments/topic.json", name] for name in sorted(values)]
    assert [line[:2] for line in rows("dvc", "metrics", "diff", "HEAD~1")[1:]] == changed
    value = ["params.yaml", "train-topic.learning_rate"]
    assert [line[:2] for line in rows("dvc", "params", "diff", "HEAD~1")[1:]] == [value]
    both = rows("dvc", "exp", "diff", "HEAD~1", "HEAD")
    assert [line[:2] for line in both if line[0] != "Path"] == [*changed, value]
    # DVC writes the name of a file into each column; in a terminal its pager scrolls.
    columns = run("dvc", "exp", "show", "--num", "2", "--csv", "--only-changed", "--drop", "artifacts/.*").splitlines()[0].split(",")
    assert sorted(columns[2:]) == sorted([*(":".join(one) for one in changed), value[1]])
    rows("dvc", "dag", "--mermaid", "score-topic")
    rows("dvc", "plots", "diff", "HEAD~1")
    assert "train-topic" in (tmp_path / "dvc_plots/index.html").read_text("utf-8")


@pytest.mark.long
@pytest.mark.skipif(
    "avx2" not in CPU or not ({"AuthenticAMD", "GenuineIntel"} & set(CPU.split())),
    reason="the digests are those of AMD and Intel processors with AVX2",
)
def test_the_quickstart_gives_the_digests_of_this_processors_maker(tmp_path: Path):
    """Minutes of real training, in a workspace with a cache of its own: the base, and the adapter that reads what all others read."""
    every = stated(README if "AuthenticAMD" in CPU else NUMERICS)
    expected = {name: every[name] for name in ("base", "multitask")}
    shutil.copytree(ROOT / "specs", tmp_path / "specs")
    for name in ("pyproject.toml", "requirements.lock"):
        shutil.copy(ROOT / name, tmp_path)
    environment = dvc_environment() | {"PYTHONPATH": str(ROOT)}
    names = [f"train-{name}" for name in expected]
    for command in (["git", "init", "--quiet"], ["dvc", "init", "--quiet"], [sys.executable, "-m", "engine", "build", *names]):
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    assert built(tmp_path, expected) == expected
