"""The doctor: each thing that stops a build or a colleague is found, with what to do."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from engine.setup.doctor import Finding, examine


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A git repository with a DVC configuration, in a home of nobody."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home"))
    for name in ("GIT_AUTHOR_NAME", "GIT_AUTHOR_EMAIL", "EMAIL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "gitconfig"))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    (tmp_path / "gitconfig").write_text("[user]\n  useConfigOnly = true\n")
    root = tmp_path / "workspace"
    (root / ".dvc").mkdir(parents=True)
    subprocess.run(["git", "init", "--quiet", str(root)], check=True)
    return root


def found(root: Path) -> dict[str, Finding]:
    return {one.what: one for one in examine(root)}


def test_an_unknown_author_is_told_how_to_introduce_himself(workspace: Path):
    assert not found(workspace)["git identity"].holds and "git config --global user.name" in found(workspace)["git identity"].detail
    for name, value in (("name", "Ada"), ("email", "ada@example.org")):
        subprocess.run(["git", "-C", str(workspace), "config", f"user.{name}", value], check=True)
    assert found(workspace)["git identity"] == Finding("git identity", True, "Ada <ada@example.org>")


def test_a_remote_that_does_not_answer_is_found_and_its_password_not_shown(workspace: Path, monkeypatch: pytest.MonkeyPatch):
    assert found(workspace)["DVC remote"].detail.startswith("none")
    monkeypatch.setenv("ADAPTERBUILD_REMOTE_TIMEOUT", "20")
    (workspace / ".dvc/config").write_text("[core]\n    remote = far\n['remote \"far\"']\n    url = ssh://me:secret@127.0.0.1:9/store\n")
    far = found(workspace)["DVC remote"]
    assert not far.holds and far.detail.startswith("ssh://127.0.0.1:9/store cannot be read: ") and "secret" not in far.detail


def test_versions_that_differ_from_the_lock_are_named(workspace: Path):
    (workspace / "adapterbuild.lock").write_text("torch==0.1\nnumpy==0.2\n")
    versions = found(workspace)["installed versions"]
    assert not versions.holds and "(locked: 0.1)" in versions.detail and "engine lock" in versions.detail


def test_a_full_disk_is_found(workspace: Path, monkeypatch: pytest.MonkeyPatch):
    assert found(workspace)["disk space of the cache"].holds
    monkeypatch.setattr("engine.setup.doctor.ROOM", 2**60)
    assert not found(workspace)["disk space of the cache"].holds and "engine gc" in found(workspace)["disk space of the cache"].detail


def test_without_git_the_doctor_says_so(workspace: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", "/nowhere")
    assert found(workspace)["git"] == Finding("git", False, "not found on PATH: install git")


@pytest.mark.parametrize(
    ("name", "text", "holds", "said"),
    [
        ("dvc.yaml", "stages:\n", True, "0 entries"),
        ("dvc.yaml", "stages: {a: {cmd: x}}\n", True, "1 entries"),
        ("dvc.yaml", "# nothing\n", True, "0 entries"),
        ("dvc.yaml", "- a\n", False, "cannot be read: it holds a list, not a mapping; write it again: engine compile"),
        ("dvc.yaml", "stages: [a]\n", False, "cannot be read: its `stages` are a list, not a mapping; write it again: engine compile"),
        ("params.yaml", "text\n", False, "cannot be read: it holds text, not a mapping; write it again: engine compile"),
        ("params.yaml", "a: 1\nb: 2\n", True, "2 entries"),
        ("dvc.lock", "stages:\n", True, "0 entries"),
        ("dvc.lock", "- a\n", False, "cannot be read: it holds a list, not a mapping; restore it: git checkout HEAD -- dvc.lock"),
    ],
)
def test_a_file_of_dvc_that_cannot_be_read_is_told_how_to_get_it_back(workspace: Path, name: str, text: str, holds: bool, said: str):
    (workspace / name).write_text(text)
    assert found(workspace)[name] == Finding(name, holds, said)


def test_an_old_python_and_an_untested_dvc_are_told_what_to_install(workspace: Path, monkeypatch: pytest.MonkeyPatch):
    assert found(workspace)["Python"].holds and found(workspace)["DVC version"].holds
    monkeypatch.setattr("engine.setup.doctor.OLDEST", (9, 0))
    monkeypatch.setattr("engine.setup.doctor.version", lambda name: "2.0")
    assert found(workspace)["Python"].detail.endswith(": install Python 9.0 or newer, and adapterbuild with it")
    assert found(workspace)["DVC version"].detail == '2.0; tested with 3.67: run pip install "dvc==3.67.*"'


def test_a_cache_that_cannot_be_written_is_told_who_may(workspace: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("engine.setup.doctor.os.access", lambda path, mode=os.F_OK: mode != os.W_OK)
    cache = found(workspace)["cache"]
    assert not cache.holds and "not writable; give yourself the right to write " in cache.detail and "dvc cache dir" in cache.detail


def test_torch_and_its_devices(workspace: Path, monkeypatch: pytest.MonkeyPatch):
    def said(gpu: bool, count: int | None) -> str:
        monkeypatch.setattr("engine.setup.doctor.has_gpu", lambda: gpu)
        monkeypatch.setattr("engine.setup.doctor.devices_here", lambda: count)
        return found(workspace)["torch"].detail.partition(", ")[2]

    assert [said(True, 1), said(True, 8), said(True, None), said(False, 1), said(False, 2)] == [
        *("1 GPU", "8 GPUs", "some GPUs"),
        *("1 CPU core", "2 CPU cores"),
    ]
    monkeypatch.setattr("engine.setup.doctor.find", lambda name: None)
    assert found(workspace)["torch"].holds and 'pip install "adapterbuild"' in found(workspace)["torch"].detail


def test_a_processor_without_avx2_is_told_what_that_means(workspace: Path, monkeypatch: pytest.MonkeyPatch):
    for flags, said in ((["avx2"], "AVX2: the same recipe gives"), ([], "portable numerics need AVX2")):
        monkeypatch.setattr("stages.process.numerics._processor", lambda flags=flags: {"flags": flags})
        monkeypatch.setattr("platform.machine", lambda: "x86_64")
        told = found(workspace)["portable numerics"]
        assert told.holds and told.detail.startswith(said)


def test_every_check_that_fails_says_what_to_do(workspace: Path, monkeypatch: pytest.MonkeyPatch):
    """In a workspace where as much as possible is wrong."""
    monkeypatch.setattr("engine.setup.doctor.OLDEST", (9, 0))
    monkeypatch.setattr("engine.setup.doctor.version", lambda name: "2.0")
    monkeypatch.setattr("engine.setup.doctor.ROOM", 2**60)
    monkeypatch.setenv("ADAPTERBUILD_REMOTE_TIMEOUT", "20")
    (workspace / ".dvc/config").write_text("[core]\n    remote = far\n['remote \"far\"']\n    url = ssh://127.0.0.1:9/store\n")
    (workspace / "adapterbuild.lock").write_text("torch==0.1\n")
    for name in ("dvc.yaml", "params.yaml", "dvc.lock"):
        (workspace / name).write_text("- a\n")
    failed = [one for one in examine(workspace) if not one.holds]
    assert len(failed) >= 11
    for one in failed:
        assert re.search(r"\b(run|install|engine|dvc|git|free|pip|restore)\b", one.detail), one
