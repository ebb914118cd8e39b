"""The command that writes a report of what was built: report."""

from pathlib import Path
from typing import Annotated

import typer

from engine.cli.app import Specs, app, load_project


@app.command()
def report(
    specs: Specs = None,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="The folder for the pages and pictures.")] = Path("report"),
) -> None:
    """Write a report as one self-contained HTML page and as Markdown: data, tokens, losses, metrics, predictions, cost."""
    from engine.cli import render
    from engine.report.collect import gather
    from engine.report.page import write
    from engine.report.sections import sections

    data = gather(load_project(), specs or [])
    title = "Report: " + ", ".join(one.name for one in data.experiments)
    written = write(output, title, sections(data))
    pictures = len(written) - 2
    render.note(f"{written[0]} and {written[1].name} written, {pictures} {'picture' if pictures == 1 else 'pictures'}")
