"""Plans and tables on narrow terminals and on pipes: nothing is lost, nothing runs over the edge, names stay beside their reasons."""

import fcntl
import io
import json
import os
import pty
import struct
import subprocess
import sys
import termios
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.cli import render
from engine.cli.tables import laid_out, room_of, wrapped
from engine.cli.values import command_of
from engine.core.errors import Location
from engine.plan.cost_memo import Costs
from engine.plan.decide import Action, Decision, Plan, Reason

ROOT = Path(__file__).parents[3]
WORDS = st.lists(st.text("ab→·12", min_size=1, max_size=9), min_size=1, max_size=12)
NOTHING = {"sizes": [], "seconds": None, "memory": None}


def text(line: render.Line) -> str:
    return "".join(piece for piece, _ in line)


@given(st.lists(st.tuples(WORDS, st.sampled_from(["", "dim"])), min_size=1, max_size=4), st.integers(9, 60))
def test_wrapping_keeps_every_word_in_its_style_and_no_line_is_too_long(pieces: list[tuple[list[str], str]], width: int):
    line = [(" ".join(words) + " ", style) for words, style in pieces]
    lines = wrapped(line, width)
    assert [word for one in lines for word in text(one).split()] == [word for words, _ in pieces for word in words]
    assert all(len(text(one).rstrip()) <= width for one in lines)
    styles = [style for one in lines for piece, style in one for _ in piece.split()]
    assert styles == [style for words, style in pieces for _ in words]


SENTENCES = WORDS.map(" ".join)
SINGLE = ["", "+0.94", "0.94 [0.91, 0.96] *", "< 0.001", "–", "答えは値段", "artifacts/" + "d" * 40]
CELLS = st.one_of(SENTENCES, st.sampled_from(SINGLE))


@given(st.data(), st.integers(1, 12), st.integers(60, 200))
def test_a_table_loses_no_word_at_any_width_and_no_line_is_too_long_or_ends_in_blanks(data: st.DataObject, columns: int, width: int):
    named = data.draw(st.lists(SENTENCES, min_size=columns, max_size=columns))
    rows = data.draw(st.lists(st.lists(CELLS, min_size=columns, max_size=columns), min_size=1, max_size=4))
    lines = [text(line) for line in laid_out("a title", named, rows, "what the " + "long " * 30 + "footnote says", width)]
    shown = Counter(" ".join(lines).split())
    assert not Counter(word for row in rows for cell in row for word in cell.split()) - shown
    assert {"a", "title", "says"} < shown.keys() and shown["long"] == 30
    assert all(room_of(line) <= width and line == line.rstrip() for line in lines)
    named_all = {word for column in named[1:] for word in column.split()}
    assert named_all <= shown.keys() or any(not cell for row in rows for cell in row)


@pytest.mark.parametrize("columns", [80, 120, None])
def test_a_number_stays_beside_its_interval_and_a_pipe_has_the_width_that_it_is_given(
    columns: int | None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("COLUMNS", str(columns)) if columns else monkeypatch.delenv("COLUMNS", raising=False)
    names = ["experiment", "trained on it", "compared with", "difference", "interval", "p (Holm)", "significant", "remark"]
    row = ["lora-support", "yes", "base", "+0.21", "[-0.28, +0.28]", "< 0.001", "yes", "the longest of all the cells of this table"]
    render.table("differences", names, [row, row])
    lines = capsys.readouterr().out.splitlines()
    assert sum("[-0.28, +0.28]" in line for line in lines) == sum("< 0.001" in line for line in lines) == 2
    assert all(line == line.rstrip() for line in lines)
    widest = max(map(len, lines))
    assert widest <= columns if columns else widest > 120


def long_plan() -> Plan:
    reason = Reason("recipe", "training.method.r", 8, 16, Location("specs/parts/tiny-adapter.toml", 12))
    upstream = [Reason("upstream", f"tokenize-task-{n}-tiny-falcon") for n in range(4)]
    return Plan(
        (
            Decision("resolve", "resolve", Action.KEEP),
            Decision("train-multitask-with-a-long-name", "train", Action.RUN, (reason, *upstream)),
        )
    )


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_a_plan_fits_its_terminal(columns: int, monkeypatch: pytest.MonkeyPatch):
    stream = io.StringIO()
    monkeypatch.setattr(stream, "isatty", lambda: True)
    monkeypatch.setattr(render.sys, "stdout", stream)
    monkeypatch.setattr(render, "_shows_styles", lambda stream: False)
    monkeypatch.setenv("COLUMNS", str(columns))
    decided = long_plan()
    render.plan("all specs", decided, Costs({d.name: NOTHING for d in decided.decisions}, (), ()))
    lines = stream.getvalue().splitlines()
    assert max(map(len, lines)) <= columns
    assert all(line[:3] in ("├─ ", "└─ ", "│  ", "   ") for line in lines[1:-1])
    shown = " ".join(" ".join(line.split()) for line in lines)
    assert "training.method.r 8 → 16 (specs/parts/tiny-adapter.toml:12)" in shown
    assert "tokenize-task-3-tiny-falcon" in shown and "train-multitask-with-a-long-name" in shown


def test_a_pipe_is_never_wrapped(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    decided = long_plan()
    render.plan("all specs", decided, Costs({d.name: NOTHING for d in decided.decisions}, (), ()))
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 5 and "\x1b" not in "".join(lines) and max(map(len, lines)) > 120


@pytest.mark.parametrize(("modules", "shown"), [(3, 3), (4, 1), (12, 1)])
def test_of_many_modules_one_is_named_and_the_others_counted(modules: int, shown: int, capsys: pytest.CaptureFixture[str]):
    reasons = tuple(Reason("code", f"stages.train.part{n}", new="changed") for n in range(modules))
    decided = Plan((Decision("train-one", "train", Action.RUN, (*reasons, Reason("upstream", "mix-one"))),))
    render.plan("all specs", decided, Costs({"train-one": NOTHING}, (), ()))
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()[1:-1]]
    assert len(lines) == shown + 1 and lines[-1] == "depends on mix-one"
    assert lines[0].endswith("code of stages.train.part0 changed" if shown == 3 else f"part0 and {modules - 1} more modules changed")
    assert len(decided.decisions[0].as_data()["reasons"]) == modules + 1


def test_texts_and_paths_are_converted_without_typers_own_conversion_and_numbers_with_it():
    from engine.cli import main as cli

    command = command_of(cli.app)
    own = {
        f"{verb} {parameter.name}"
        for verb, sub in command.commands.items()
        for parameter in sub.params
        if type(parameter._runtime_param).__name__ == "_Plain"
    }
    assert {"plan targets", "check specs", "show spec", "gc keep", "why step", "plan json"} <= own
    assert "build jobs" not in own


HOSTILE = "\x1b[2J\x1b]0;title\x07\x9b2J \u202ereversed"


def test_what_steps_say_in_a_live_status_is_shown_and_not_obeyed():
    shown = render.LiveStatus(lambda: ["bar", f"  train-x  3 s  {HOSTILE}\rand more"]).shown()
    assert shown.plain.splitlines() == ["bar", r"  train-x  3 s  \x1b[2J\x1b]0;title\x07\x9b2J \u202ereversed and more"]


def test_json_holds_the_value_and_nothing_that_a_terminal_obeys(capsys: pytest.CaptureFixture[str]):
    for answer in (render.as_json, render.as_json_line):
        answer({"answer": HOSTILE})
        text = capsys.readouterr().out
        assert json.loads(text)["answer"] == HOSTILE and text.replace("\n", "").isprintable()


@pytest.mark.parametrize("terminal", [True, False])
def test_csv_is_data_for_a_pipe_and_shown_in_a_terminal(
    terminal: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr("sys.stdout.isatty", lambda: terminal)
    render.as_csv(["a"], [[HOSTILE]])
    assert ("\x1b" in capsys.readouterr().out) is not terminal


def test_what_a_line_of_markdown_holds_makes_no_markup_of_its_own(capsys: pytest.CaptureFixture[str]):
    """Such as the prompt of an Alpaca template in a recipe."""
    prompt = "recipe  task  prompts[0]  Below is\n\n### Response:\n| a | [b](c) <i> \x1b[2J"
    render.as_markdown([prompt], [("# t", ["a|b"], [["x\ny"]], None)])
    assert capsys.readouterr().out == (
        "- recipe  task  prompts\\[0\\]  Below is ↵ \\#\\#\\# Response: ↵ \\| a \\| \\[b\\](c) &lt;i&gt; \\\\x1b\\[2J\n\n"
        "### \\# t\n\n| a\\|b |\n| --- |\n| x ↵ y |\n"
    )


LINE = """
import subprocess, sys, time
from engine.cli import render

line = render.StatusLine(lambda: "3 of 9 \\x1b[2J")
line.stop()
line.start()
subprocess.run([sys.executable, "-c", "print('the step says')"])
time.sleep(0.2)
line.stop()
print("afterwards")
"""


@pytest.mark.parametrize(("lines", "terminal"), [(24, "xterm"), (4, "xterm"), (24, "dumb")])
def test_a_status_line_is_the_last_of_a_terminal_and_gives_it_back(lines: int, terminal: str):
    shown, inside = pty.openpty()
    fcntl.ioctl(inside, termios.TIOCSWINSZ, struct.pack("HHHH", lines, 80, 0, 0))
    environment = {**os.environ, "TERM": terminal}
    subprocess.run([sys.executable, "-c", LINE], cwd=ROOT, stdin=inside, stdout=inside, stderr=inside, env=environment, check=True)
    os.close(inside)
    text = os.read(shown, 1 << 16).decode()
    os.close(shown)
    assert "the step says" in text and "afterwards" in text
    if lines < 5 or terminal == "dumb":
        assert "\x1b" not in text
        return
    begin, drawn, end = (
        text.index(sequence) for sequence in ("\x1b[1;23r", "\x1b[24;1H\x1b[2K\x1b[1m3 of 9 \\x1b[2J", "\x1b[r\x1b[24;1H\x1b[2K")
    )
    assert begin < drawn < end < text.index("afterwards") and text.count("\x1b7") == text.count("\x1b8")
