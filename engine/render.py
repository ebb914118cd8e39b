"""How things look in a terminal; the only file that imports rich."""

import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from engine.errors import UserError
from engine.facts import Facts, expected_seconds
from engine.plan import Action, Decision, Plan, Reason

# A pipe or a file has no width: nothing is wrapped there.
_UNBOUNDED = 10_000
_STYLES = {Action.KEEP: "dim", Action.RESTORE: "cyan", Action.RUN: "bold yellow", Action.MAYBE: "yellow"}


def out() -> Console:
    return Console(highlight=False, width=None if sys.stdout.isatty() else _UNBOUNDED)


@cache
def err() -> Console:
    # One console for all: what moves at the bottom of a terminal then makes way for lines.
    return Console(stderr=True, highlight=False, width=None if sys.stderr.isatty() else _UNBOUNDED)


def error(problem: UserError) -> None:
    """Print what, where and hint of every problem to stderr."""
    console = err()
    for number, item in enumerate(problem.problems):
        for line in ([""] if number else []) + str(item).splitlines():
            style = "bold red" if line.startswith("error:") else "cyan" if line.startswith("  hint:") else ""
            console.print(Text(line, style=style), soft_wrap=True)


def note(text: str) -> None:
    """A line for people, beside the data: to stderr."""
    err().print(Text(text, style="dim"), soft_wrap=True)


def warn(text: str) -> None:
    """Something that people must see: to stderr."""
    err().print(Text(f"warning: {text}", style="bold yellow"), soft_wrap=True)


def as_json(value: Any) -> None:
    """Print one JSON value to stdout."""
    sys.stdout.write(json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def plan(title: str, decided: Plan, facts: Mapping[str, Facts]) -> None:
    """The plan as a tree: action, step, and its reasons or its size; then one line that sums up."""
    console = out()
    console.print(Text(title, style="bold"))
    width = max((len(d.name) for d in decided.decisions), default=0) + 2
    last = len(decided.decisions) - 1
    for number, decision in enumerate(decided.decisions):
        _branch(console, decision, facts.get(decision.name, Facts()), width, number == last)
    console.print(Text(_summary(decided, facts), style="bold"))


def plan_as_json(decided: Plan, facts: Mapping[str, Facts]) -> None:
    """The plan as one JSON value, with each step's facts."""
    steps = [{**decision.as_data(), "facts": facts.get(decision.name, Facts()).as_data()} for decision in decided.decisions]
    as_json({**decided.as_data(), "steps": steps})


def _branch(console: Console, decision: Decision, facts: Facts, width: int, is_last: bool) -> None:
    lines = [_reason(reason) for reason in _telling(decision.reasons)]
    sizes = [*facts.sizes, *_time(facts, decision.action)]
    if sizes:
        lines.append(Text(" · ".join(sizes), style="dim"))
    for number, line in enumerate(lines or [Text()]):
        guide = ("└─ " if is_last else "├─ ") if number == 0 else ("   " if is_last else "│  ")
        head = f"{decision.action:<9}{decision.name:<{width}}" if number == 0 else " " * (9 + width)
        console.print(Text(guide, style="dim") + Text(head, style=_STYLES[decision.action]) + line, soft_wrap=True)


def _time(facts: Facts, action: Action) -> list[str]:
    """How long the last run took; for a training that nobody has timed here, that this is unknown."""
    if facts.seconds and action is not Action.KEEP:
        return [f"{duration(facts.seconds)} last time"]
    return ["time unknown"] if facts.estimate and action in (Action.RUN, Action.MAYBE) else []


def _telling(reasons: Sequence[Reason]) -> list[Reason]:
    """What a person wants to read: all producers that a step follows in one line, and none where the step was never built anyway."""
    followed = [reason.subject for reason in reasons if reason.cause == "upstream"]
    others = [reason for reason in reasons if reason.cause != "upstream"]
    if not followed or any(reason.cause == "never-built" for reason in others):
        return others
    return [*others, Reason("upstream", ", ".join(followed))]


def _reason(reason: Reason) -> Text:
    text = Text(str(reason))
    if reason.where:
        text.append(f"   ({reason.where.file}:{reason.where.line})", style="dim")
    return text


def _summary(decided: Plan, facts: Mapping[str, Facts]) -> str:
    counts = {action: decided.count(action) for action in Action}
    words = [f"{counts[Action.RUN]} to run"]
    if counts[Action.MAYBE]:
        words.append(f"{counts[Action.MAYBE]} that may run")
    words += [f"{counts[Action.KEEP]} kept", f"{counts[Action.RESTORE]} restored"]
    seconds, unknown = expected_seconds(decided, facts)
    time = ""
    if counts[Action.RUN] + counts[Action.MAYBE]:
        known = f"about {duration(seconds)}" if seconds else ""
        parts = [part for part in (known, f"{unknown} never timed here" if unknown else "") if part]
        time = f" · {' + '.join(parts)}" if parts else ""
    return ", ".join(words) + time


def duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{max(rest, 1)} s"


_STEP_STYLES = {"run": "bold yellow", "done": "green", "restored": "cyan", "failed": "bold red", "stopped": "yellow"}


def step_line(word: str, name: str, remark: str) -> None:
    """What has just happened to a step: one line on stderr."""
    err().print(Text(f"{word:<9}", style=_STEP_STYLES[word]) + Text(name) + Text(f"   {remark}", style="dim"), soft_wrap=True)


def plain(text: str) -> None:
    """Text of another program, as it is, to stderr."""
    err().print(Text(text), soft_wrap=True)


class Moving:
    """A few lines at the bottom of a terminal that are kept up to date; nothing at all where stderr is no terminal."""

    def __init__(self, rows: Callable[[], list[str]]) -> None:
        moving = lambda: Text("\n".join(rows()), style="bold", no_wrap=True, overflow="ellipsis")  # noqa: E731
        self._live = Live(get_renderable=moving, console=err(), refresh_per_second=4, transient=True)

    def start(self) -> None:
        if sys.stderr.isatty():
            self._live.start()

    def stop(self) -> None:
        self._live.stop()


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]], caption: str | None = None) -> None:
    """A table to stdout; the first column is a name, the others are set to the right where they are numbers."""
    rows = [tuple(row) for row in rows]
    view = Table(title=title, caption=caption, box=SIMPLE_HEAD, title_justify="left", caption_justify="left", title_style="bold")
    for number, column in enumerate(columns):
        numeric = all(row[number].replace(".", "", 1).replace(",", "").isdigit() or row[number] in ("", "–") for row in rows)
        view.add_column(column, justify="right" if number and numeric and rows else "left", overflow="fold")
    for row in rows:
        view.add_row(*(escape(cell) for cell in row))
    out().print(view)


def lines(items: Iterable[tuple[str, str]]) -> None:
    """Plain lines with a dim remark at the end of each."""
    console = out()
    for text, remark in items:
        console.print(Text(text) + Text(f"   {remark}" if remark else "", style="dim"), soft_wrap=True)
