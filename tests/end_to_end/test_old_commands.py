"""What an earlier release recorded under another command is kept, restored and renewed: nothing reruns for a command's new text."""

import shutil

import pytest

from engine.core.workspace import Workspace
from engine.dvc import dvcfile
from engine.dvc.dvcfile import Record
from engine.dvc.recording import Recorder
from engine.plan.project import Project
from tests.end_to_end.conftest import Place

pytestmark = pytest.mark.slow


@pytest.fixture
def old(place: Place) -> Place:
    """The built workspace as an earlier release had recorded it."""
    project = Project(Workspace(place.root))
    store = project.store()
    recorder = Recorder(place.root, project.hashes)
    shutil.rmtree(place.root / dvcfile.CACHE / "runs")
    for step in project.graph:
        record = store.record(step.name)
        before = Record(dvcfile.commands(step)[-1], record.dependencies, record.outputs)
        assert before.command != record.command
        recorder.write_run(before)
        recorder.note(step.name, before)
    recorder.flush()
    return place


def test_the_plan_keeps_it_and_a_build_renews_the_records_for_dvc(old: Place):
    assert set(old.plan().values()) == {"keep"}
    assert any("command changed" in line for line in old.run("engine", "plan", "--dvc", "train-one", check=False).stdout.splitlines())
    done = old.run("engine", "build")
    assert not [line for line in done.stderr.splitlines() if line.startswith("run ")], done.stderr
    assert "python -m stages" not in (old.root / "dvc.lock").read_text()
    assert set(old.repro().values()) == {"keep"}


def test_it_is_restored_from_the_run_cache_and_found_there_by_dvc_from_then_on(old: Place):
    lock = (old.root / "dvc.lock").read_bytes()
    (old.root / "dvc.lock").unlink()
    shutil.rmtree(old.root / "artifacts/train-one")
    assert set(old.plan().values()) == {"restore", "keep"}
    old.run("engine", "build")
    assert (old.root / "artifacts/train-one").is_dir()
    assert (old.root / "dvc.lock").read_bytes() == lock.replace(b"python -m stages", b"python -P -m adapterbuild stages")
    assert set(old.repro().values()) == {"keep"}


def test_diff_knows_the_trainings_of_both(old: Place):
    old.commit("as the earlier release recorded it")
    old.edit("specs/one.toml", "[mixture]", '[training]\nmethod = { kind = "lora", r = 8, lora_alpha = 4 }\n\n[mixture]')
    old.run("engine", "build", "train-one")
    assert "train-one" in old.run("engine", "diff", "HEAD").stdout.partition("adapters and models")[2]
