"""The Typer app to which the commands are added, and what they share: arguments, exit codes, the project."""

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
"""Exit codes; docs/reference/exit-codes.md is written from where the commands use them."""

COMPLETION_VARIABLE = "_ENGINE_COMPLETE"
"""The environment variable by which a shell asks what could come next."""


def _workspace(context: typer.Context) -> Any:
    from engine.core.workspace import Workspace

    return Workspace.at(context.find_root().params.get("workspace") or Path())


def _specs(context: typer.Context) -> Any:
    """The workspace's specs; none while they have mistakes."""
    from engine.core.errors import UserError
    from engine.plan.project import Project

    try:
        return Project(_workspace(context)).specs
    except UserError:
        return ()


def specs_like(context: typer.Context, incomplete: str) -> list[str]:
    """The specs that begin with INCOMPLETE, for the shell's completion."""
    workspace = _workspace(context)
    return [name for path in workspace.spec_paths() if (name := workspace.display(path)).startswith(incomplete)]


def experiments_like(context: typer.Context, incomplete: str) -> list[str]:
    """The experiments that begin with INCOMPLETE."""
    return [spec.name for spec in _specs(context) if spec.name.startswith(incomplete)]


def tasks_like(context: typer.Context, incomplete: str) -> list[str]:
    """The tasks that begin with INCOMPLETE, of the spec or experiment that the command names; of all specs if it names none of them."""
    specs = _specs(context)
    named = str(context.params.get("spec") or context.params.get("target") or "")
    meant = [spec for spec in specs if named in (spec.path, spec.name, spec.stem)] or specs
    return [task for task in dict.fromkeys(task for spec in meant for task in spec.experiment.tasks) if task.startswith(incomplete)]


def names_like(context: typer.Context, incomplete: str) -> list[str]:
    """The specs, experiments and steps that begin with INCOMPLETE; only specs while these have mistakes."""
    from engine.core.errors import UserError
    from engine.plan.project import Project

    specs = specs_like(context, incomplete)
    try:
        project = Project(_workspace(context))
        names = dict.fromkeys([spec.name for spec in project.specs] + [step.name for step in project.graph])
    except UserError:
        return specs
    return [*specs, *(name for name in names if name.startswith(incomplete))]


Specs = Annotated[
    list[Path] | None, typer.Argument(metavar="SPEC", help="Specs of the workspace. Default: all.", autocompletion=specs_like)
]
Targets = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="SPEC|STEP", help="Specs or names of steps. Default: everything.", show_default=False, autocompletion=names_like
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print the output as JSON.")]


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"adapterbuild {__version__}")
        raise typer.Exit()


class Settings:
    """The values of the options before the command."""

    workspace = Path()


@app.callback()
def _options(
    workspace: Annotated[
        Path, typer.Option("--workspace", "-w", metavar="DIR", help="The workspace: the folder with specs, dvc.yaml and artifacts.")
    ] = Path(),
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.", callback=_print_version, is_eager=True)] = False,
) -> None:
    Settings.workspace = workspace


def load_project() -> Any:
    from engine.core.workspace import Workspace
    from engine.plan.project import Project

    return Project(Workspace.at(Settings.workspace))


def ready(root: Path) -> None:
    """Resolve merge conflicts in generated files, and install the merge driver in this clone; reports what it changed."""
    from engine.cli import render
    from engine.core.workspace import CODE_ROOT
    from engine.dvc import conflicts

    for sentence in conflicts.mend(root):
        render.note(sentence)
    if conflicts.install_driver(root, CODE_ROOT):
        render.note(f"this clone now merges {', '.join(conflicts.FILES)} step by step (merge.{conflicts.DRIVER} in .git/config)")
