"""The command that shows a row as training sees it: inspect."""

from typing import Annotated, Literal

import typer

from engine.cli.app import Json, app, load_project, names_like, tasks_like


@app.command()
def inspect(
    target: Annotated[
        str,
        typer.Argument(
            autocompletion=names_like,
            metavar="EXPERIMENT|ADAPTER",
            help="An experiment, a spec, or the content address of an adapter.",
        ),
    ],
    row: Annotated[int, typer.Argument(metavar="ROW", help="The index of the row in its token file, from 0.", min=0)] = 0,
    task: Annotated[
        str | None,
        typer.Option(autocompletion=tasks_like, metavar="TASK", help="A task of the mixture. Default: the first.", show_default=False),
    ] = None,
    split: Annotated[Literal["train", "validation"], typer.Option(help="The split of the row.")] = "train",
    json: Json = False,
) -> None:
    """Show a row as training sees it: each token, whether it is supervised, and what base and trained model predict there."""
    from engine.cli import render
    from engine.rows.inspection import COLUMNS, rows, title
    from engine.rows.inspection import inspect as look

    answer = look(load_project(), target, row, task, split)
    if json:
        render.as_json(answer)
    else:
        render.table(title(answer), COLUMNS, rows(answer))
