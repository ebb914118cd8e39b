"""Shells complete commands, specs, experiments and steps, and one command installs that."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.commands import engine
from tests.support.toys import toy

ROOT = Path(__file__).parents[3]


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    (tmp_path / "specs").mkdir()
    (tmp_path / "specs/topic.toml").write_text(toy(name="topic"))
    (tmp_path / "a.jsonl").write_text('{"word": "x"}\n' * 9)
    return tmp_path


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("rep", {"report"}),
        ("results spe", {"specs/topic.toml"}),
        ("plan t", {"topic", "tokenize-a-tiny", "train-topic"}),
        ("verify to", {"topic", "tokenize-a-tiny"}),
        ("report --se", {"--serve"}),
        ("preview specs/topic.toml a", {"a"}),
        ("ask topic --task a", {"a"}),
        ("chat topic --with t", {"topic"}),
    ],
)
def test_what_a_shell_offers(words: str, offered: set[str], workspace: Path, monkeypatch: pytest.MonkeyPatch):
    for name, value in (("COMPLETE", "complete_bash"), ("ARGS", "")):
        monkeypatch.setenv(f"_ENGINE_{name}", value)
    monkeypatch.setenv("COMP_WORDS", f"engine {words}")
    monkeypatch.setenv("COMP_CWORD", str(len(words.split())))
    assert set(engine(workspace).stdout.split()) == offered


def test_specs_with_mistakes_are_still_offered(workspace: Path, monkeypatch: pytest.MonkeyPatch):
    (workspace / "specs/topic.toml").write_text("[experiment")
    monkeypatch.setenv("_ENGINE_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", "engine plan ")
    monkeypatch.setenv("COMP_CWORD", "2")
    assert engine(workspace).stdout.split() == ["specs/topic.toml"]


def test_it_is_installed_for_the_shell_of_the_account(tmp_path: Path):
    environment = os.environ | {"HOME": str(tmp_path), "SHELL": "/bin/bash"}
    command = [sys.executable, "-m", "engine", "completion"]
    subprocess.run([*command, "--install"], cwd=ROOT, env=environment, check=True)
    script = (tmp_path / ".bash_completions/engine.sh").read_text()
    assert "_ENGINE_COMPLETE=complete_bash" in script and "engine.sh" in (tmp_path / ".bashrc").read_text()
    unknown = subprocess.run(command, cwd=ROOT, env=environment | {"SHELL": "/bin/ksh"}, capture_output=True, text=True, check=False)
    assert unknown.returncode == 1 and "hint: name one of them: --shell bash|zsh|fish|pwsh" in unknown.stderr
