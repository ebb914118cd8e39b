"""The verb that shows what a task's rows become: preview; thin, as those of `engine.cli.app`."""

from pathlib import Path
from typing import Annotated

import typer

from engine.cli.app import Json, app, load_project


@app.command()
def preview(
    spec: Annotated[Path, typer.Argument(metavar="SPEC", help="One spec of the workspace.")],
    task: Annotated[str, typer.Argument(metavar="TASK", help="One of its tasks.")],
    rows: Annotated[int, typer.Option("--rows", "-n", min=1, help="Number of rows to show.")] = 5,
    json: Json = False,
) -> None:
    """Show what a task's first rows become: source, prompt, completion, tokens with the supervised part coloured; writes nothing."""
    from engine.cli import render, render_preview
    from engine.rows.preview import preview as look

    project = load_project()
    chosen, *others = project.chosen([spec])
    if others:
        render.note(f"{spec} is a sweep; this is its first point, {chosen.name}")
    found = look(project, chosen, task, rows)
    if json:
        render.as_json(found.as_data())
    else:
        render_preview.preview(found)
