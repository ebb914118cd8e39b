"""Progress: silent where quick, a line now and then where slow, a bar on a terminal."""

import io
import sys

import pytest

from stages.process import progress as module
from stages.process.progress import end_bars, progress, seconds_left


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
    assert captured.err.splitlines() == ["reading: 10/25 rows, 0:15 left", "reading: 20/25 rows, 0:05 left", "reading: 25/25 rows"]
    assert captured.out == ""


def test_units_are_counted_and_noted(clock, capsys):
    with progress(100, "training", "steps") as bar:
        bar.update(3)
        clock.now = 11
        bar.update(4, "loss 2.5")
    assert bar.done == 7
    assert capsys.readouterr().err.splitlines() == ["training: 7/100 steps, loss 2.5, 2:26 left", "training: 7/100 steps"]


def test_what_is_left_follows_from_the_pace_of_this_run_and_is_read_back(clock, capsys):
    with progress(10_000, "training", "steps") as bar:
        bar.skip(9000)
        clock.now = 20
        bar.update(2, "loss 2.5")
    line = capsys.readouterr().err.splitlines()[0]
    assert line == "training: 9002/10000 steps, loss 2.5, 2:46:20 left" and seconds_left(line) == 2 * 3600 + 46 * 60 + 20
    assert seconds_left("training: 7/100 steps, loss 2.5, 0:07 left") == 7 and seconds_left("rows: 3 left") is None


class Terminal(io.StringIO):
    def isatty(self):
        return True


def on_terminal(monkeypatch):
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    return terminal


def test_an_error_has_a_line_of_its_own_below_a_bar_that_it_has_left_open(monkeypatch):
    terminal = on_terminal(monkeypatch)

    def work():
        for _ in progress(iter("abc"), "generate-a"):
            raise KeyError("x")

    with pytest.raises(KeyError) as caught:
        work()
    end_bars()
    print(f"error: {caught.value}", file=sys.stderr)
    last = terminal.getvalue().splitlines()[-1]
    assert last == "error: 'x'"


def test_a_bar_of_resumed_work_shows_one_remaining_time(monkeypatch):
    terminal = on_terminal(monkeypatch)
    bar = progress(100, "training", "steps")
    bar.skip(90)
    bar.update(1, "loss 2.5")
    bar.close()
    assert "91/100" in terminal.getvalue() and "left" not in terminal.getvalue()


def test_a_terminal_gets_a_bar(monkeypatch):
    terminal = on_terminal(monkeypatch)
    assert list(progress([1, 2], "reading")) == [1, 2]
    assert "reading: 100%" in terminal.getvalue() and "2/2" in terminal.getvalue()


def test_an_error_in_the_work_is_not_swallowed(capsys):
    with pytest.raises(KeyError), progress(5, "training") as bar:
        bar.update()
        raise KeyError("x")
