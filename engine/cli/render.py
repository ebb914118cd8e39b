"""Terminal output; imports rich only for colours, tables and live status."""

import json
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from threading import Event, Thread
from typing import TYPE_CHECKING, Any, TextIO

from engine.cli.tables import wrapped
from engine.core.errors import Problem, UserError, visible, visible_json
from engine.core.markdown import inline
from engine.plan.cost_memo import Costs, Known, expected_seconds
from engine.plan.decide import Action, Decision, Plan, Reason

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

JSON_VERSION = 1
"""The version of what `--json` prints, for all commands: raised when a key is removed, renamed, or means something else."""
_UNBOUNDED = 10_000
_STYLES = {Action.KEEP: "dim", Action.RESTORE: "cyan", Action.RUN: "bold yellow", Action.MAYBE: "yellow"}
_MODULES_NAMED = 3
"""Up to this number of changed modules, all are named; of more, only the first."""
_NARROWEST = 28
"""Columns that reasons need to the right of step names; with fewer, they are printed below."""

Span = tuple[str, str]
"""Text and its style."""
Line = Sequence[Span]


def _shows_styles(stream: TextIO) -> bool:
    return stream.isatty() or bool(os.environ.get("FORCE_COLOR"))


@cache
def _console(stderr: bool) -> "Console":
    """One console per stream, so that the live status at the bottom of a terminal makes way for lines."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    return Console(stderr=stderr, highlight=False, width=None if stream.isatty() else _columns())


def _columns() -> int:
    """The width of stdout; a pipe or a file has none, and its lines are not wrapped, unless COLUMNS is set."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() or os.environ.get("COLUMNS", "").isdecimal() else _UNBOUNDED


def out() -> "Console":
    """The console of stdout, for output that needs more than plain lines."""
    return _console(False)


def text(*spans: str | Span, style: str = "") -> "Text":
    """SPANS one after another, as a terminal may show them."""
    from rich.text import Text

    return Text.assemble(*(visible(span) if isinstance(span, str) else (visible(span[0]), span[1]) for span in spans), style=style)


def _print(lines: Iterable[Line], stderr: bool = False) -> None:
    """Write lines; without colours, rich is not imported, which takes longer than a plan."""
    stream = sys.stderr if stderr else sys.stdout
    if not _shows_styles(stream):
        stream.writelines("".join(visible(span) for span, _ in line) + "\n" for line in lines)
        return
    for line in lines:
        _console(stderr).print(text(*line), soft_wrap=True)


def error(problem: UserError) -> None:
    """Print every problem of a UserError to stderr: message, location and hint."""
    _problems(problem.problems)


def warnings(found: Iterable[Problem]) -> None:
    """Print problems that are only warnings to stderr: message, location and hint."""
    _problems(found)


def _problems(found: Iterable[Problem]) -> None:
    styles = {"error:": "bold red", "warning:": "bold yellow", "  hint:": "cyan"}
    for number, item in enumerate(found):
        for line in ([""] if number else []) + str(item).splitlines():
            style = next((style for start, style in styles.items() if line.startswith(start)), "")
            _print([[(line, style)]], stderr=True)


def note(said: str) -> None:
    """Print an informational line to stderr."""
    _print([[(said, "dim")]], stderr=True)


def warn(said: str) -> None:
    """Print a warning to stderr."""
    _print([[(f"warning: {said}", "bold yellow")]], stderr=True)


def as_json(answer: Mapping[str, Any]) -> None:
    """Print what a command answers with `--json` to stdout; docs/reference/output.schema.json has the form of each."""
    configuration({"version": JSON_VERSION, **answer})


def as_json_line(answer: Mapping[str, Any]) -> None:
    """As `as_json`, for commands that answer with a line for each row."""
    print(visible_json(json.dumps({"version": JSON_VERSION, **answer}, ensure_ascii=False)), flush=True)


def configuration(value: Any) -> None:
    """Print the configuration of another program to stdout, as that program reads it."""
    sys.stdout.write(visible_json(json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False)) + "\n")


def document(content: str) -> None:
    """Print a file's CONTENT to stdout: as it is for a pipe or a file, and as a terminal may show it for a terminal."""
    sys.stdout.write(visible(content) if sys.stdout.isatty() else content)


def plan(title: str, decided: Plan, costs: Costs) -> None:
    """Print the plan as a tree: action, step, and its reasons or sizes; then a summary line."""
    columns = _columns()
    width = max((len(d.name) for d in decided.decisions), default=0) + 2
    last = len(decided.decisions) - 1
    lines: list[Line] = [[(title, "bold")]]
    for number, decision in enumerate(decided.decisions):
        lines += _branch(decision, costs.steps[decision.name], width, columns, number == last)
    _print([*lines, [(_summary(decided, costs), "bold")]])


def plan_as_json(decided: Plan, costs: Costs) -> None:
    """Print the plan as one JSON value with each step's facts; one line per step, since there may be thousands."""
    steps = ({**decision.as_data(), "facts": costs.steps[decision.name]} for decision in decided.decisions)
    lines = ",\n".join(json.dumps(step, ensure_ascii=False, allow_nan=False) for step in steps)
    sys.stdout.write(f'{{"version": {JSON_VERSION}, "steps": [\n{visible_json(lines)}\n]}}\n')


def _branch(decision: Decision, known: Known, width: int, columns: int, is_last: bool) -> list[Line]:
    """The lines of one step: reasons and sizes to the right of its name, or below it if there are too few columns."""
    remarks = [_reason(reason) for reason in _telling(decision.reasons)]
    if sizes := [*known["sizes"], *_time(known, decision.action)]:
        remarks.append([(" · ".join(sizes), "dim")])
    beside = columns - 3 - 9 - width >= _NARROWEST
    indent = 9 + width if beside else 2
    found = [line for remark in remarks for line in wrapped(remark, columns - 3 - indent)]
    style, more = _STYLES[decision.action], "   " if is_last else "│  "
    head: list[Span] = [("└─ " if is_last else "├─ ", "dim"), (f"{decision.action:<9}{decision.name:<{width if beside else 0}}", style)]
    below = found[1:] if beside else found
    return [[*head, *(found[0] if beside and found else ())], *([(more + " " * indent, "dim"), *line] for line in below)]


def _time(known: Known, action: Action) -> list[str]:
    """How long the step will take, from its last run; for a training never timed on this machine, that it is unknown."""
    if known["seconds"] and action is not Action.KEEP:
        expected, last = duration(known["seconds"]), duration(known["last_seconds"])
        return [f"{last} last time" if expected == last else f"about {expected} ({last} last time)"]
    return ["time unknown"] if known["memory"] and action in (Action.RUN, Action.MAYBE) else []


def _telling(reasons: Sequence[Reason]) -> list[Reason]:
    """The reasons as the plan shows them: all upstream steps in one line, or none if the step was never built.

    Of many changed modules only the first is named; `engine why` and `--json` name all."""
    followed = [reason.subject for reason in reasons if reason.cause == "upstream"]
    code = [reason for reason in reasons if reason.cause == "code"]
    folded = code[1:] if len(code) > _MODULES_NAMED else []
    others = [reason for reason in reasons if reason.cause != "upstream" and reason not in folded]
    if folded:
        others[others.index(code[0])] = replace(code[0], new=f"and {len(folded)} more modules changed")
    if not followed or any(reason.cause == "never-built" for reason in others):
        return others
    return [*others, Reason("upstream", ", ".join(followed))]


def _reason(reason: Reason) -> list[Span]:
    place: list[Span] = [(f"   ({reason.where.file}:{reason.where.line})", "dim")] if reason.where else []
    return [(str(reason), ""), *place]


def _summary(decided: Plan, costs: Costs) -> str:
    counts = {action: decided.count(action) for action in Action}
    words = [f"{counts[Action.RUN]} to run"]
    if counts[Action.MAYBE]:
        words.append(f"{counts[Action.MAYBE]} may run")
    words += [f"{counts[Action.KEEP]} up to date", f"{counts[Action.RESTORE]} from cache"]
    seconds, unknown = expected_seconds(decided, costs)
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


_STEP_STYLES = {"run": "bold yellow", "done": "green", "restored": "cyan", "pushed": "green", "failed": "bold red", "stopped": "yellow"}


def step_line(word: str, name: str, remark: str) -> None:
    """Print one line to stderr about an event of a step."""
    _print([[(f"{word:<9}", _STEP_STYLES[word]), (name, ""), (f"   {remark}", "dim")]], stderr=True)


def plain(output: str) -> None:
    """Print another program's output to stderr."""
    _print([[(line, "")] for line in output.splitlines()], stderr=True)


class LiveStatus:
    """A live status: a few lines at the bottom of a terminal; prints nothing if stderr is not a terminal."""

    def __init__(self, rows: Callable[[], list[str]]) -> None:
        from rich.live import Live

        self._rows = rows
        self._live = Live(get_renderable=self.shown, console=_console(True), refresh_per_second=4, transient=True)

    def shown(self) -> "Text":
        """The lines of this moment, each cut at the terminal's width; what steps say in them is shown, and not obeyed."""
        found = text("\n".join(" ".join(row.splitlines()) for row in self._rows()), style="bold")
        found.no_wrap, found.overflow = True, "ellipsis"
        return found

    def start(self) -> None:
        if sys.stderr.isatty():
            self._live.start()

    def stop(self) -> None:
        self._live.stop()


class StatusLine:
    """One line at the bottom of a terminal to which another process writes: what that writes scrolls above the line.

    It does not take part where stderr is no terminal, or one of a few lines.
    """

    def __init__(self, row: Callable[[], str]) -> None:
        self._row = row
        self._size = os.terminal_size((0, 0))
        self._ended = Event()
        self._drawing: Thread | None = None

    def start(self) -> None:
        """Show the line, and every second what it says then, until `stop`."""
        if self._drawing is None and sys.stderr.isatty() and os.environ.get("TERM", "dumb") != "dumb" and self._reserve("\n", "\x1b[1A"):
            self._drawing = Thread(target=self._draw_on, daemon=True)
            self._drawing.start()

    def stop(self) -> None:
        """Give the line back to the terminal."""
        if self._drawing is not None:
            self._ended.set()
            self._drawing.join()
            self._drawing = None
            # Without a margin the whole screen scrolls again. Setting one moves the cursor, which is why it is saved.
            self._write(f"\x1b7\x1b[r\x1b[{self._size.lines};1H\x1b[2K\x1b8")

    def _draw_on(self) -> None:
        while True:
            self._draw()
            if self._ended.wait(1.0):
                return

    def _draw(self) -> None:
        if self._size != os.get_terminal_size(sys.stderr.fileno()) and not self._reserve():
            return
        row = visible(" ".join(self._row().splitlines()))[: self._size.columns - 1]
        self._write(f"\x1b7\x1b[{self._size.lines};1H\x1b[2K\x1b[1m{row}\x1b[0m\x1b8")

    def _reserve(self, before: str = "", after: str = "") -> bool:
        """Let only the lines above the last one scroll; BEFORE and AFTER make room below the cursor. False if there are too few."""
        self._size = os.get_terminal_size(sys.stderr.fileno())
        if self._size.lines < _FEWEST_LINES:
            return False
        self._write(f"{before}\x1b7\x1b[1;{self._size.lines - 1}r\x1b8{after}")
        return True

    @staticmethod
    def _write(sequence: str) -> None:
        """In one piece, so that nothing of another process comes between."""
        sys.stderr.flush()
        os.write(sys.stderr.fileno(), sequence.encode("utf-8", "replace"))


_FEWEST_LINES = 5
"""A terminal with fewer lines has none to spare."""


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]], caption: str | None = None) -> None:
    """Print a table to stdout; no text is lost in a narrow terminal."""
    from engine.cli.tables import laid_out

    shown = [tuple(map(visible, row)) for row in rows]
    _print(laid_out(visible(title), columns, shown, caption, _columns()))


def fits(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> bool:
    """Whether the rows of a table are lines in this terminal; anything fits where there is none."""
    from engine.cli.tables import side_by_side

    return side_by_side(columns, rows, _columns())


def sentence(said: str) -> None:
    """Print a sentence of an answer to stdout."""
    _print([[(said, "bold")]])


def as_csv(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print rows to stdout as CSV with a header."""
    import csv
    import io

    made = io.StringIO()
    csv.writer(made, lineterminator="\n").writerows([columns, *rows])
    document(made.getvalue())


def as_markdown(said: Iterable[str], tables: Iterable[tuple[str, Sequence[str], Iterable[Sequence[str]], str | None]]) -> None:
    """Print sentences as a list, then tables with title and legend, to stdout in Markdown."""

    def row(cells: Iterable[str]) -> str:
        return f"| {' | '.join(map(inline, cells))} |"

    lines = [f"- {inline(line)}" for line in said]
    for title, columns, rows, legend in tables:
        lines += ["", f"### {inline(title)}", "", row(columns), f"|{' --- |' * len(columns)}", *map(row, rows)]
        lines += ["", inline(legend)] if legend else []
    sys.stdout.write("\n".join(lines).strip() + "\n")


def lines(items: Iterable[tuple[str, str]]) -> None:
    """Print lines to stdout, each with a dim remark at its end."""
    _print([(text, ""), (f"   {remark}" if remark else "", "dim")] for text, remark in items)
