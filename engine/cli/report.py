"""The command that writes a report of what was built: report."""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from engine.cli.app import Specs, app, load_project

if TYPE_CHECKING:
    from engine.plan.project import Project


@app.command()
def report(
    specs: Specs = None,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="The folder for the pages and pictures.")] = Path("report"),
    serve: Annotated[
        bool, typer.Option("--serve", help="Write nothing; serve the page on loopback, and keep it up to date while a build runs.")
    ] = False,
    port: Annotated[int, typer.Option(min=0, max=65535, help="With --serve: the port; 0: a free one.", metavar="PORT")] = 8765,
) -> None:
    """Write a report as one self-contained HTML page and as Markdown: data, tokens, losses, metrics, predictions, cost."""
    from engine.cli import render
    from engine.report.collect import gather
    from engine.report.page import write
    from engine.report.sections import sections

    if serve:
        _serve(specs or [], port)
        return
    data = gather(load_project(), specs or [])
    title = "Report: " + ", ".join(one.name for one in data.experiments)
    written = write(output, title, sections(data))
    pictures = len(written) - 2
    render.note(f"{written[0]} and {written[1].name} written, {pictures} {'picture' if pictures == 1 else 'pictures'}")


def _serve(specs: Sequence[Path], port: int) -> None:
    """Serve the report until ^C; while specs have mistakes, the page says so."""
    from engine.cli import render
    from engine.core.errors import UserError
    from engine.report.blocks import Block, Commands, Remark, Section
    from engine.report.collect import gather
    from engine.report.live import stamp
    from engine.report.page import html
    from engine.report.sections import running_now, sections
    from engine.report.serving import Page
    from engine.report.serving import serve as run

    root, read = load_project().root, set[Path]()

    def opened() -> "Project":
        project: Project = load_project()
        read.update(root / file for spec in project.specs for file in spec.files)
        return project

    def make(now: str) -> str:
        try:
            data = gather(opened(), specs)
        except UserError as error:
            told: list[Block] = [Remark("The report cannot be made at present:"), Commands([str(problem) for problem in error.problems])]
            return html("Report", [Section("summary", "Summary", told)], now)
        title = "Report: " + ", ".join(one.name for one in data.experiments)
        return html(title, [*running_now(data), *sections(data)], now)

    with suppress(UserError):  # which the page says
        opened()
    run(Page(make, lambda: stamp(root, tuple(read))), port, lambda address: render.note(f"report on {address}; ^C ends"))
    render.note("ended")
