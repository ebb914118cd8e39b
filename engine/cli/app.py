"""The command line that the verbs join, and what several of them share: arguments, exit codes, the project."""

from pathlib import Path
from typing import Annotated, Any

import typer

from engine import __version__

app = typer.Typer(
    name="engine",
    help="Bazel for fine-tuned models: TOML specs in, a DVC pipeline out, and a plan that says what would run, why and at what cost.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,  # help as plain text: the other sort imports a whole Markdown parser
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

NOTHING_TO_DO, MISTAKE, SOMETHING_TO_DO, PREEMPTED, INTERRUPTED = 0, 1, 2, 75, 130

Specs = Annotated[list[Path] | None, typer.Argument(metavar="SPEC", help="Specs of the workspace; none given: all of them.")]
Targets = Annotated[
    list[str] | None, typer.Argument(metavar="SPEC|STEP", help="Specs, or names of steps; none given: everything.", show_default=False)
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON value for programs.")]


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"adapterbuild {__version__}")
        raise typer.Exit()


class Settings:
    """What the options before the verb say."""

    workspace = Path()


@app.callback()
def _options(
    workspace: Annotated[
        Path, typer.Option("--workspace", "-w", metavar="DIR", help="The folder with specs, dvc.yaml and artifacts.")
    ] = Path(),
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.", callback=_print_version, is_eager=True)] = False,
) -> None:
    Settings.workspace = workspace


def load_project() -> Any:
    from engine.core.workspace import Workspace
    from engine.plan.project import Project

    return Project(Workspace.at(Settings.workspace))


def ready(root: Path) -> None:
    """Mend what git has left conflict markers in, and see that this clone merges generated files step by step; says what is new."""
    from engine.cli import render
    from engine.core.workspace import CODE_ROOT
    from engine.dvc import conflicts

    for sentence in conflicts.mend(root):
        render.note(sentence)
    if conflicts.install_driver(root, CODE_ROOT):
        render.note(
            f"git merges {', '.join(conflicts.FILES)} step by step in this clone from now on (merge.{conflicts.DRIVER} in .git/config)"
        )
