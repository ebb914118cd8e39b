"""Progress: silent where quick, a line now and then where slow, a bar on a terminal."""

import io
import sys

import pytest

from stages.process import progress as module
from stages.process.progress import progress


class Clock:
    now = 0.0

    def monotonic(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


def test_quick_work_says_nothing(capsys):
    assert list(progress(iter("abc"), "reading")) == ["a", "b", "c"]
    assert capsys.readouterr() == ("", "")


def test_slow_work_says_a_line_every_ten_seconds_and_a_last_one(clock, capsys):
    for _ in progress([None] * 25, "reading", "rows"):
        clock.now += 1
    captured = capsys.readouterr()
    # An item counts as done when the next one is asked for, at which time the clock has moved.
    assert captured.err.splitlines() == ["reading: 10/25 rows", "reading: 20/25 rows", "reading: 25/25 rows"] and captured.out == ""


def test_units_are_counted_and_noted(clock, capsys):
    with progress(100, "training", "steps") as bar:
        bar.update(3)
        clock.now = 11
        bar.update(4, "loss 2.5")
    assert bar.done == 7
    assert capsys.readouterr().err.splitlines() == ["training: 7/100 steps, loss 2.5", "training: 7/100 steps"]


def test_a_terminal_gets_a_bar(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    assert list(progress([1, 2], "reading")) == [1, 2]
    assert "reading: 100%" in terminal.getvalue() and "2/2" in terminal.getvalue()


def test_an_error_in_the_work_is_not_swallowed(capsys):
    with pytest.raises(KeyError), progress(5, "training") as bar:
        bar.update()
        raise KeyError("x")
