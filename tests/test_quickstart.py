"""The README's digests: read from its table, and those that this code builds."""

import hashlib
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
