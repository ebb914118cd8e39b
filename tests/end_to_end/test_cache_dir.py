"""`cache.dir` of DVC's configuration is where the plan looks, the build writes, and gc does not."""

import shutil
from pathlib import Path

import pytest

from engine.core.errors import UserError
from engine.dvc.config import cache_folder
from tests.end_to_end.conftest import Place, actions
from tests.end_to_end.light import TARGETS

CONFIGURATIONS = {
    "nothing is said": {},
    "relative to .dvc": {".dvc/config": "[core]\n    analytics = false\n[cache]\n    dir = ../../shared\n"},
    "absolute": {".dvc/config": "[cache]\ndir = /tmp/somewhere/cache\n"},
    "the clone's own configuration wins": {".dvc/config": "[cache]\n dir = a\n", ".dvc/config.local": "[cache]\n    dir = b\n"},
    "another option of the cache": {
        ".dvc/config": "[cache]\n    type = hardlink\n",
        ".dvc/config.local": "['remote \"x\"']\n    url = /y\n",
    },
    "of the user": {"user/config": "[cache]\n    dir = /tmp/of-the-user\n", ".dvc/config.local": "[cache]\n    type = copy\n"},
}


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


@pytest.mark.slow
@pytest.mark.parametrize("files", CONFIGURATIONS.values(), ids=CONFIGURATIONS)
def test_the_folder_is_the_one_that_dvc_names(files: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    root = tmp_path.resolve()
    monkeypatch.setenv("DVC_GLOBAL_CONFIG_DIR", str(root / "user"))
    Place(root).run("dvc", "init", "--no-scm", "--quiet")
    write(root, files)
    shown = Place(root).run("dvc", "cache", "dir").stdout.strip()
    assert cache_folder(root) == Path(shown)


@pytest.mark.parametrize("line", ["dir = s3://bucket/x", "local = other"])
def test_a_cache_that_is_no_folder_is_refused(line: str, tmp_path: Path):
    write(tmp_path, {".dvc/config": f"[cache]\n    {line}\n"})
    with pytest.raises(UserError, match="DVC's cache must be a local folder"):
        cache_folder(tmp_path)


def files_of(folder: Path) -> set[Path]:
    return {path.relative_to(folder) for path in folder.rglob("*") if path.is_file()}


@pytest.mark.long
def test_plan_build_and_dvc_share_the_cache_that_is_configured(light_place: Place):
    place, shared = light_place, light_place.root.parent / "shared"
    place.run("dvc", "cache", "dir", "../shared")
    place.run("engine", "build", *TARGETS, check=False)
    built = files_of(shared)
    assert {path.parts[0] for path in built} == {"runs", "files"} and not files_of(place.root / ".dvc/cache")
    assert {action for name, action in place.repro(*TARGETS).items() if name != "resolve"} == {"keep"}
    for name in TARGETS:
        shutil.rmtree(place.root / "artifacts" / name)
    plan = place.plan()
    assert {plan[name] for name in TARGETS} == {"restore"}
    shutil.move(place.root / "dvc.lock", place.root / "lock")
    assert {place.plan()[name] for name in TARGETS} == {"restore"}
    done = place.run("dvc", "repro", *TARGETS).stdout
    assert {actions(done)[name] for name in TARGETS} == {"restore"}, done
    assert files_of(shared) == built
    told = place.run("engine", "gc", "--force").stdout
    assert "outside the workspace; other workspaces may use it" in told and files_of(shared) == built


@pytest.mark.slow
@pytest.mark.long
def test_gc_follows_a_cache_that_lies_in_the_workspace(light_place: Place):
    place, cache = light_place, light_place.root / "store"
    place.run("dvc", "cache", "dir", "store")
    place.run("engine", "build", "split-a", check=False)
    place.commit("built")
    # What steps that were not built would be is kept with the first build, and nothing refers to it.
    place.run("engine", "gc", "--force")
    before = files_of(cache)
    assert {path.parts[0] for path in before} == {"runs", "files"}
    place.edit("specs/parts/common.toml", "Say {{ word }}:", "Speak {{ word }}:")
    place.run("engine", "build", "split-a", check=False)
    place.git("checkout", "--", ".")
    place.run("engine", "gc", "--force")
    assert files_of(cache) == before
