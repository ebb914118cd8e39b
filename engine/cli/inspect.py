"""The verb that shows what training sees: inspect; thin, as those of `engine.cli.app`."""

from typing import Annotated, Literal

import typer

from engine.cli.app import Json, app, load_project


@app.command()
def inspect(
    target: Annotated[str, typer.Argument(metavar="EXPERIMENT|ADAPTER", help="An experiment, a spec, or an adapter's content address.")],
    row: Annotated[int, typer.Argument(metavar="ROW", help="Number of the row in its token file, from 0.", min=0)] = 0,
    task: Annotated[
        str | None, typer.Option(metavar="TASK", help="One of the mixture's tasks; none given: the first.", show_default=False)
    ] = None,
    split: Annotated[Literal["train", "validation"], typer.Option(help="Which split the row is of.")] = "train",
    json: Json = False,
) -> None:
    """Show a row as training sees it: each token, whether it is learned, what base and trained model say there, how likely the truth is."""
    from engine.cli import render
    from engine.rows.inspection import COLUMNS, rows, title
    from engine.rows.inspection import inspect as look

    answer = look(load_project(), target, row, task, split)
    if json:
        render.as_json(answer)
    else:
        render.table(title(answer), COLUMNS, rows(answer))
