"""The doctor: each thing that stops a build or a colleague is found, with what to do."""

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
