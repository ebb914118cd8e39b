"""The command that shows what a task's rows become: preview."""

from pathlib import Path
from typing import Annotated

import typer

from engine.cli.app import Json, app, load_project, specs_like, tasks_like


@app.command()
def preview(
    spec: Annotated[Path, typer.Argument(autocompletion=specs_like, metavar="SPEC", help="A spec of the workspace.")],
    task: Annotated[str, typer.Argument(autocompletion=tasks_like, metavar="TASK", help="A task of the spec.")],
    rows: Annotated[int, typer.Option("--rows", "-n", metavar="N", min=1, help="The number of rows to show.")] = 5,
    json: Json = False,
) -> None:
    """Show a task's first rows: source, prompt, completion, and tokens with the supervised part coloured; writes nothing."""
    from engine.cli import render, render_preview
    from engine.rows.preview import preview as look

    project = load_project()
    chosen, *others = project.chosen([spec])
    if others:
        render.note(f"{spec} is a sweep; showing its first point, {chosen.name}")
    found = look(project, chosen, task, rows)
    if json:
        render.as_json(found.as_data())
    else:
        render_preview.preview(found)
