"""The command that draws the graph of steps: graph."""

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from engine.cli.app import Targets, app, load_project


@app.command()
def graph(
    targets: Targets = None,
    form: Annotated[Literal["text", "mermaid", "svg"], typer.Option("--format", "-f", help="The output format.")] = "text",
    output: Annotated[Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write to FILE instead of stdout.")] = None,
) -> None:
    """Draw the graph of steps as text, Mermaid or SVG."""
    from engine.cli import render
    from engine.report.graph_drawing import FORMATS, edges_of

    drawn = FORMATS[form](edges_of(load_project().select(targets or []).graph))
    if output is None:
        sys.stdout.write(drawn)
    else:
        output.write_text(drawn, "utf-8")
        render.note(f"{output} written")
