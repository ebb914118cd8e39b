"""The commands that ask built models: ask and chat."""

import json as jsonlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from engine.cli.app import INTERRUPTED, MISTAKE, Json, app, experiments_like, load_project, names_like, tasks_like
from engine.core.errors import UserError, visible

if TYPE_CHECKING:
    from engine.rows.answers import Model
    from engine.rows.talk import Talk

Target = Annotated[
    str,
    typer.Argument(
        autocompletion=names_like,
        metavar="EXPERIMENT|DIGEST|FOLDER",
        help="An experiment, a spec, the content address of an adapter, or a model's folder.",
    ),
]
Task = Annotated[
    str | None,
    typer.Option(
        autocompletion=tasks_like, metavar="TASK", help="The task whose prompt, system prompt and token limit apply. Default: the first."
    ),
]
System = Annotated[str | None, typer.Option(metavar="TEXT", help="The system prompt. Default: that of the task.", show_default=False)]
Limit = Annotated[
    int | None, typer.Option(metavar="N", min=1, help="Maximum tokens of an answer. Default: the task's.", show_default=False)
]

_DIM, _BOLD, _PLAIN = "\x1b[2m", "\x1b[1m", "\x1b[0m"


@app.command()
def ask(
    target: Target,
    question: Annotated[
        str | None, typer.Argument(metavar="QUESTION", help="A text, or a row as JSON. Default: rows of JSONL, or one text, on stdin.")
    ] = None,
    task: Task = None,
    system: System = None,
    max_new_tokens: Limit = None,
    json: Json = False,
) -> None:
    """Ask a built model, as its evaluation does; the answer to a row is the one that its predict step gives."""
    from engine.rows.answers import Answerer

    (model,), root = models_of([target])
    chosen = model.task(task)
    asked = _asked(model, chosen, question, system)
    answered, interrupted = True, False
    with Answerer(root, [model]) as answerer:
        for row, where in asked:
            growing = Growing()
            for event in answerer.ask(
                model, chosen, row, where, max_new_tokens=max_new_tokens, stream="text" if sys.stdout.isatty() and not json else None
            ):
                answered &= _print(event, json, growing)
                interrupted |= event.get("interrupted", False)
            if interrupted:
                raise typer.Exit(INTERRUPTED)
    if not answered:
        raise typer.Exit(MISTAKE)


def models_of(targets: Sequence[str]) -> "tuple[list[Model], Path]":
    """The models that TARGETS name, and the folder in which the process that answers runs."""
    from engine.rows.answers import is_folder, of_experiment, of_folder

    project = None if all(map(is_folder, targets)) else load_project()
    found = [of_folder(target) if project is None or is_folder(target) else of_experiment(project, target) for target in targets]
    names = [model.name for model in found]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise UserError(f"two of these models are called {twice}", hint="name each once; rename one of two folders")
    return found, project.root if project else Path.cwd()


def _asked(
    model: "Model", task: str, question: str | None, system: str | None
) -> Iterator[tuple[Mapping[str, Any], tuple[str, int | None]]]:
    """The rows to answer, each with its place: QUESTION, else the rows on stdin, else the whole of stdin as one question."""
    from engine.rows.questions import question_row

    given = model.systems.get(task) if system is None else system
    if question is not None and question.lstrip().startswith("{") and (row := _object(question)):
        yield row, ("question", None)
        return
    if question is not None:
        yield question_row(question, given), ("question", None)
        return
    if sys.stdin.isatty():
        raise UserError("no question", hint="give it as an argument, or rows on stdin: engine ask EXPERIMENT < rows.jsonl")
    first = sys.stdin.readline()
    if not first.lstrip().startswith("{"):
        text = (first + sys.stdin.read()).rstrip("\n")
        if not text:
            raise UserError("no question: stdin is empty")
        yield question_row(text, given), ("question", None)
        return
    for number, line in enumerate((first, *sys.stdin), 1):
        if line.strip():
            yield _row(line, number), ("stdin", number)


def _object(text: str) -> dict[str, Any] | None:
    """The row that TEXT is as JSON; None for any other text, such as code that begins with a brace."""
    try:
        return _row(text, 1)
    except UserError:
        return None


def _row(line: str, number: int) -> dict[str, Any]:
    from engine.core.errors import Location
    from engine.rows.questions import identity_of

    try:
        row = jsonlib.loads(line)
    except ValueError as error:
        raise UserError(f"not valid JSON: {error}", Location("stdin", number)) from None
    if not isinstance(row, dict):
        raise UserError("a row must be a JSON object", Location("stdin", number))
    # A row of columns gets the id that it has in its task.
    return {"id": identity_of(str(row.get("prompt", row.get("messages")))), **row} if {"prompt", "messages"} & row.keys() else row


def _print(event: Mapping[str, Any], json: bool, growing: "Growing") -> bool:
    """Print an event of an answer, which is GROWING; whether it is an answer or a part of one."""
    if event["event"] == "text":
        sys.stdout.write(growing.shown(event["text"]))
        sys.stdout.flush()
        return True
    if event["event"] == "error":
        print(visible(event["text"]), file=sys.stderr)
        return False
    if json:
        from engine.cli import render

        render.as_json_line({name: value for name, value in event.items() if name != "event"})
    elif event["event"] == "left_out":
        print(visible(f"error: {event['id'] or 'this row'} is left out: {event['left_out']}"), file=sys.stderr)
    else:
        print("" if sys.stdout.isatty() else event["answer"], flush=True)
    return bool(event["event"] != "left_out")


@app.command()
def chat(
    target: Target,
    others: Annotated[
        list[str] | None,
        typer.Option(
            "--with",
            autocompletion=experiments_like,
            metavar="OTHER",
            help="Another model that answers the same questions; may be repeated.",
        ),
    ] = None,
    task: Task = None,
    system: System = None,
    max_new_tokens: Limit = None,
) -> None:
    """Talk to built models in the terminal, with the template, system prompt and end tokens of their training and evaluation."""
    from engine.cli import render
    from engine.rows.answers import Answerer
    from engine.rows.talk import Talk

    models, root = models_of([target, *(others or [])])
    for model in models:
        model.task(task)
    render.note(f"loading {', '.join(model.name for model in models)} …")
    with Answerer(root, models) as answerer:
        screen = _Screen(len(models) > 1, sys.stdout.isatty())
        talk = Talk(answerer, models, screen.show, task, max_new_tokens, system)
        for model in models:
            if prompt := talk.system_of(model):
                render.note(f"{model.name}: system prompt: {prompt}")
        render.note("/help lists the commands, ^D ends")
        while (line := _line()) is not None:
            _turn(talk, line)


class _Screen:
    """Prints answers as they grow; above each the model's name, if there are several."""

    def __init__(self, several: bool, colours: bool) -> None:
        self.several, self.colours = several, colours
        self._fresh = True
        self._growing = Growing()

    def show(self, model: "Model", event: Mapping[str, Any]) -> None:
        if self._fresh:
            self._growing = Growing()
        if self._fresh and self.several:
            self._write(f"{_BOLD}{model.name}{_PLAIN}\n" if self.colours else f"{model.name}\n")
        self._fresh = event["event"] != "text"
        match event["event"]:
            case "text":
                self._write(self._growing.shown(event["text"]))
            case "answer":
                ended = {"length": f"cut after {event['tokens']} tokens"}.get(str(event["finish_reason"]), "")
                said = "interrupted" if event["interrupted"] else ended
                self._write((f" {_DIM}({said}){_PLAIN}" if self.colours else f" ({said})") if said else "")
                self._write("\n")
            case "left_out":
                self._write(f"(no answer: {visible(event['left_out'])})\n")
            case _:
                self._write(f"{visible(event['text'])}\n")

    def _write(self, text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()


class Growing:
    """An answer while it grows: for a program as it is; for a terminal as that may print it, without the blanks before its first word."""

    def __init__(self) -> None:
        self._begun = False

    def shown(self, text: str) -> str:
        """What TEXT, the next part of the answer, adds to what is shown."""
        if not sys.stdout.isatty():
            return text
        text = text if self._begun else text.lstrip()
        self._begun |= bool(text)
        return visible(text)


def _line() -> str | None:
    """The next line of the user, None at the end; ^C begins the line anew."""
    with suppress(ImportError):
        import readline  # noqa: F401 - gives `input` its history and editing
    while True:
        try:
            return input("> " if sys.stdin.isatty() else "").strip()
        except EOFError:
            return None
        except KeyboardInterrupt:
            print()


def _turn(talk: "Talk", line: str) -> None:
    if line == "/quit":
        raise typer.Exit()
    if not line:
        return
    try:
        if line.startswith("/"):
            print(visible(talk.command(line)))
        else:
            talk.ask(line)
    except UserError as error:
        print("\n".join(str(problem) for problem in error.problems))
