"""The commands that set up and check a workspace: init, doctor."""

from pathlib import Path
from typing import Annotated

import typer

from engine.cli.app import MISTAKE, Json, Settings, app


@app.command()
def init(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="The folder of the workspace.")] = Path(),
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Write a spec for these rows (.jsonl, .json, .csv, .tsv, .parquet), from their columns; the file is copied into data/ "
            "if it is outside of the workspace and at most 50 MB.",
            show_default=False,
        ),
    ] = None,
    answer: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN", help="The column of --data that is learned; default: what names and values suggest.", show_default=False
        ),
    ] = None,
    template: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Write a spec with comments for rows of this sort: chat, classify, summarize or preferences; for those of --data, or, "
            "without it, for a small file data/NAME.jsonl, which you replace by your own.",
            show_default=False,
        ),
    ] = None,
    ci: Annotated[
        str | None,
        typer.Option(metavar="HOST", help="Also write the checks of pull requests: github or gitlab.", show_default=False),
    ] = None,
) -> None:
    """Create a workspace: git, DVC, ignore files, and a first spec to edit."""
    from engine.cli import render
    from engine.setup.init import init as make

    made = make(directory, ci, data, answer, template)
    for sentence in made.told:
        render.note(sentence)
    render.note(f"workspace {directory} is ready" + (f", with new files: {', '.join(made.files)}" if made.files else ""))
    verb = f"preview {made.spec} {made.task}" if made.spec else "plan"
    render.note(f"next: engine {verb}" if directory.resolve() == Path.cwd() else f"next: engine --workspace {directory} {verb}")


@app.command()
def doctor(json: Json = False) -> None:
    """Check this machine and the workspace: versions, devices, git, DVC, its remote, the cache. Exit code 1 if a check fails."""
    from engine.cli import render
    from engine.core.workspace import Workspace
    from engine.setup.doctor import COLUMNS, examine

    found = examine(Workspace.at(Settings.workspace).root.resolve() if Settings.workspace.is_dir() else Settings.workspace)
    good = all(one.holds for one in found)
    if json:
        render.as_json({"healthy": good, "checks": [vars(one) for one in found]})
    else:
        render.table("doctor", list(COLUMNS), [[one.what, "yes" if one.holds else "NO", one.detail] for one in found])
    if not good:
        raise typer.Exit(MISTAKE)
