"""The page of exit codes; the commands that choose one are compared with where the code does so."""

import ast
import inspect
import sys
from importlib import import_module

from engine.cli import app
from tools.markdown import GENERATED, table

_MEANINGS = (
    (app.NOTHING_TO_DO, "done"),
    (
        app.MISTAKE,
        "an error in a spec, in data, or in what the command was given; what it needs is not built; a check or a step failed: "
        "stderr says which",
    ),
    (app.SOMETHING_TO_DO, "an unknown command or option, or a wrong value of one; of two commands (below): something is left to do"),
    (
        app.PREEMPTED,
        "stopped by SIGTERM, as clusters do: trainings have saved their state, and the same command resumes (`EX_TEMPFAIL` of sysexits.h)",
    ),
    (app.INTERRUPTED, "^C: what is finished is kept"),
)
_CHOSEN = {
    ("ask", app.MISTAKE): "a row has no answer; the others are answered",
    ("ask", app.INTERRUPTED): "^C while it answers",
    ("build", app.SOMETHING_TO_DO): "with `--detach`: jobs run or wait on the cluster",
    ("build", app.PREEMPTED): "SIGTERM: run the same command to resume",
    ("build", app.INTERRUPTED): "^C: run the same command to resume",
    ("doctor", app.MISTAKE): "a check failed",
    ("plan", app.NOTHING_TO_DO): "every step is up to date; with `--fail-on run`: nothing would run, at most something is restored",
    ("plan", app.MISTAKE): "with `--strict`: a training does not fit its device; with `--fail-on run`: a step would run or may run",
    ("plan", app.SOMETHING_TO_DO): "a step would run, may run, or would be restored",
    (
        "serve",
        app.INTERRUPTED,
    ): "^C while models load, or a second ^C, which drops requests in flight; the first one finishes them: 0",
    ("verify", app.MISTAKE): "a digest differs",
    ("wait", app.PREEMPTED): "SIGTERM: run the same command to go on",
    ("wait", app.INTERRUPTED): "^C: run the same command to go on",
    ("work", app.MISTAKE): "the step failed",
    ("work", app.PREEMPTED): "stopped, and its checkpoints are in the store",
}
"""What the exit codes mean that a command chooses itself. `work` passes the worker's on, and `--fail-on` raises an error."""


_NOT_REACHED = ("wait", app.SOMETHING_TO_DO)
"""`wait` shares the code of `build`, and never leaves jobs behind."""


def page() -> str:
    """The page's text; raises ValueError if a command chooses a code that is not described, or no longer does."""
    described = {pair for pair in _CHOSEN if pair[0] != "work"} | {_NOT_REACHED}
    if differing := described ^ chosen():
        raise ValueError(f"tools/reference_exit_codes.py describes other exit codes than engine/cli uses: {sorted(differing)}")
    parts = [
        "# Exit codes",
        GENERATED,
        "Every command of `engine` ends with one of these:",
        table(("code", "means"), [(f"`{code}`", text) for code, text in _MEANINGS]),
        "Commands that choose one themselves:",
        table(
            ("command", "code", "means"),
            [(f"[`{verb}`](cli.md#engine-{verb})", f"`{code}`", text) for (verb, code), text in _CHOSEN.items()],
        ),
        "`engine plan` ends with 2 if there is something to do, and also if it does not know an option. A script that must not confuse "
        "the two uses `--fail-on run`, whose codes are 0 and 1.",
        "Steps are processes of their own: `engine build` prints the exit status of one that failed, and ends with 1.",
    ]
    return "\n\n".join(parts) + "\n"


def chosen() -> set[tuple[str, int]]:
    """The pairs of command and exit code for which the command, or a function of its module that it calls, ends with a code by name."""
    found = set()
    for verb, command in import_module("engine.cli.main").command().commands.items():
        tree = ast.parse(inspect.getsource(sys.modules[command.callback.__module__]))
        functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
        reached, waiting = set(), [command.callback.__name__]
        while waiting:
            if (name := waiting.pop()) in functions and name not in reached:
                reached.add(name)
                calls = [node for node in ast.walk(functions[name]) if isinstance(node, ast.Call)]
                waiting += [ast.unparse(call.func) for call in calls]
                exits = [node for call in calls if ast.unparse(call.func) == "typer.Exit" for node in ast.walk(call)]
                found |= {(verb, getattr(app, node.id)) for node in exits if isinstance(node, ast.Name) and node.id.isupper()}
    return found
