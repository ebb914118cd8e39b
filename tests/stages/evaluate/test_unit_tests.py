"""Answers that are code: whether they pass the tests of their row, and what they may not do meanwhile."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.core.errors import UserError
from stages.evaluate.metrics.unit_tests import UnitTests
from tests.stages.evaluate.made import prediction, values


def _isolates() -> bool:
    """Whether bubblewrap is here and the kernel allows it."""
    command = ["bwrap", "--ro-bind", "/", "/", "--unshare-all", "true"]
    return bool(shutil.which("bwrap")) and subprocess.run(command, capture_output=True, check=False).returncode == 0


ISOLATED = pytest.mark.skipif(not _isolates(), reason="no bubblewrap that works (Debian: apt-get install bubblewrap)")
BOTH = pytest.mark.parametrize("isolation", [pytest.param("bubblewrap", marks=ISOLATED), "limits"])

ADD = "def add(a, b):\n    return a + b\n"
CHECKS = "assert add(1, 2) == 3\nassert add(-1, 1) == 0\n"


def passed(*answers: str, tests: str = CHECKS, isolation: str = "limits", **settings) -> list[bool]:
    """Which of the answers pass the tests."""
    (statistic,) = UnitTests(isolation=isolation, **settings).measure([prediction(answer, tests) for answer in answers])
    return [bool(row[0]) for row in statistic.rows]


@BOTH
def test_code_passes_if_all_its_tests_do(isolation: str):
    wrong, late = "def add(a, b):\n    return 3\n", "assert add(2, 2) == 4"
    assert passed(ADD, wrong, "def add(a, b) return", "", "I would add them.", isolation=isolation) == [True, False, False, False, False]
    assert passed(ADD, wrong, tests=f"{CHECKS}{late}", isolation=isolation) == [True, False]


def test_the_value_is_a_proportion_of_rows_and_an_answer_that_was_cut_off_fails():
    rows = [prediction(ADD, CHECKS), prediction(ADD, CHECKS, ended=False), prediction("pass", CHECKS), prediction(ADD, CHECKS)]
    assert values(UnitTests(isolation="limits"), rows) == {"unit_tests": 0.5}


def test_code_stands_in_a_fence_or_is_the_whole_answer():
    said = f"Here you are:\n\n```python\n{ADD}```\n\nIt adds.\n\n```\nnot python\n```"
    later = f"```bash\nls\n```\n```python\n{ADD}```"
    assert passed(said, f"```\n{ADD}```", f"```py\n{ADD}", later, f"Sure.\n{ADD}") == [True, True, True, True, False]


def test_a_model_may_complete_the_prompt():
    prompt = 'def add(a, b):\n    """The sum."""\n'
    (statistic,) = UnitTests(isolation="limits", with_prompt=True).measure([prediction("    return a + b\n", CHECKS, prompt=prompt)])
    assert statistic.rows[0][0] == 1


def test_tests_are_statements_functions_and_classes_of_unittest():
    functions = "def test_small():\n    assert add(1, 2) == 3\n\ndef test_big():\n    assert add(10**9, 1) == 10**9 + 1\n"
    classes = "import unittest\n\nclass Adds(unittest.TestCase):\n    def test_it(self):\n        self.assertEqual(add(1, 2), 3)\n"
    wrong = "def add(a, b):\n    return 3\n"
    assert passed(ADD, wrong, tests=functions) == [True, False]
    assert passed(ADD, "def add(a, b):\n    return 4\n", tests=classes) == [True, False]


def test_of_several_references_all_have_to_pass():
    both = ("assert add(1, 2) == 3", "assert add(2, 2) == 4")
    one = prediction("def add(a, b):\n    return 3\n", both[0], references=both)
    assert values(UnitTests(isolation="limits"), [one]) == {"unit_tests": 0.0}


@pytest.mark.parametrize("end", ["import sys; sys.exit(0)", "raise SystemExit", "import os; os._exit(0)", "quit = exit"])
def test_code_that_ends_before_its_tests_has_passed_nothing(end: str):
    assert passed(f"{end}\n{ADD}", tests="assert False") == [False]


def test_a_guarded_main_does_not_run():
    assert passed(f"{ADD}\nif __name__ == '__main__':\n    print(add(int(input()), 1))\n") == [True]


def test_dataclasses_and_annotations_find_their_module():
    code = "from __future__ import annotations\nfrom dataclasses import dataclass\n\n@dataclass\nclass P:\n    x: int\n"
    assert passed(code, tests="assert P(1) == P(1)") == [True]


@BOTH
@pytest.mark.parametrize(
    "code",
    [
        "while True: pass",
        "import time; time.sleep(3600)",
        "x = bytearray(10**10)",
        "def f(): return f()\nf()",
        "import sys\nwhile True: sys.stdout.write('x' * 10**6)",
        "open('big', 'wb').write(b'x' * 10**8)",
        "import os\nwhile True: os.fork()",
        "import subprocess; subprocess.run(['true'], check=True)",
        "import os; os.system('true')",
        "import socket; socket.create_connection(('127.0.0.1', 9))",
        "import os, signal; os.kill(os.getppid(), signal.SIGTERM)",
        "import ctypes; ctypes.CDLL(None)",
    ],
)
def test_code_that_takes_too_much_fails_alone(isolation: str, code: str):
    assert passed(f"{ADD}{code}\n", ADD, isolation=isolation, seconds=1) == [False, True]


@BOTH
def test_code_writes_in_its_own_folder_alone(isolation: str, tmp_path: Path):
    theirs = tmp_path / "theirs"
    theirs.write_text("kept")
    write = f"open({str(theirs)!r}, 'w').write('lost')"
    remove, rename = f"import os; os.remove({str(theirs)!r})", f"import os; os.rename({str(theirs)!r}, 'mine')"
    inside = "open('mine', 'w').write('x'); assert open('mine').read() == 'x'"
    tests = "assert True"
    assert passed(write, remove, rename, inside, tests=tests, isolation=isolation) == [False, False, False, True]
    assert theirs.read_text() == "kept" and list(tmp_path.iterdir()) == [theirs]


@ISOLATED
def test_code_sees_neither_files_of_ours_nor_other_processes(tmp_path: Path):
    (tmp_path / "secret").write_text("secret")
    look = f"import os; assert not os.path.exists({str(tmp_path / 'secret')!r})"
    processes = "assert len([name for name in os.listdir('/proc') if name.isdigit()]) <= 2"
    assert passed(look, f"import os; {processes}", tests="", isolation="bubblewrap") == [True, True]


@BOTH
def test_code_sees_no_variables_of_ours(isolation: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    assert passed("import os; assert 'OPENAI_API_KEY' not in os.environ", tests="", isolation=isolation) == [True]


def test_hashes_and_random_numbers_are_the_same_each_time():
    code = "import random\nassert (hash('a') % 20, round(random.random(), 3)) == (SEEN, 0.844)"
    assert sum(passed(*(code.replace("SEEN", str(number)) for number in range(20)), tests="")) == 1


def test_a_machine_without_bubblewrap_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="no bwrap on PATH") as caught:
        passed(ADD, isolation="bubblewrap")
    assert "apt-get install bubblewrap" in str(caught.value)


def test_a_bubblewrap_that_is_refused_says_why(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    (tmp_path / "bwrap").write_text("#!/bin/sh\necho 'setting up uid map: Permission denied' >&2\nexit 1\n")
    (tmp_path / "bwrap").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(UserError, match="setting up uid map: Permission denied"):
        passed(ADD, isolation="bubblewrap")


@settings(deadline=None, max_examples=20)
@given(st.lists(st.sampled_from([ADD, "pass", "def add(a, b): return 3", "import sys; sys.exit()", "\ud800", "\x00"]), max_size=5))
def test_every_answer_is_judged_alone(answers: list[str]):
    assert passed(*answers) == [answer == ADD for answer in answers]
