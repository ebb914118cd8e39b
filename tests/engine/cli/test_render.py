"""The plan on narrow terminals and on pipes: nothing is lost, nothing runs over the edge, names stay beside their reasons."""

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.cli import render
from engine.cli.values import command_of
from engine.core.errors import Location
from engine.plan.cost_memo import Costs
from engine.plan.decide import Action, Decision, Plan, Reason

WORDS = st.lists(st.text("ab→·12", min_size=1, max_size=9), min_size=1, max_size=12)
NOTHING = {"sizes": [], "seconds": None, "memory": None}


def text(line: render.Line) -> str:
    return "".join(piece for piece, _ in line)


@given(st.lists(st.tuples(WORDS, st.sampled_from(["", "dim"])), min_size=1, max_size=4), st.integers(9, 60))
def test_wrapping_keeps_every_word_in_its_style_and_no_line_is_too_long(pieces: list[tuple[list[str], str]], width: int):
    line = [(" ".join(words) + " ", style) for words, style in pieces]
    wrapped = render._wrapped(line, width)
    assert [word for one in wrapped for word in text(one).split()] == [word for words, _ in pieces for word in words]
    assert all(len(text(one).rstrip()) <= width for one in wrapped)
    styles = [style for one in wrapped for piece, style in one for _ in piece.split()]
    assert styles == [style for words, style in pieces for _ in words]


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


def test_a_pipe_is_never_wrapped(capsys: pytest.CaptureFixture[str]):
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
