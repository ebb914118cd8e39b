"""The verb about sweeps: pick; thin, as those of `engine.cli.app`."""

from pathlib import Path
from typing import Annotated

import typer

from engine.cli.app import Json, app, load_project
from engine.core.errors import UserError


@app.command()
def pick(
    spec: Annotated[Path, typer.Argument(metavar="SPEC", help="A spec with a sweep.")],
    metric: Annotated[
        str | None,
        typer.Option(
            help="A metric of validation rows; none given: the first where evaluation.split is validation, else validation_loss.",
            show_default=False,
        ),
    ] = None,
    task: Annotated[
        str | None, typer.Option(metavar="TASK", help="Of one task; none given: the mean over all.", show_default=False)
    ] = None,
    highest: Annotated[bool, typer.Option("--max", help="More is better.")] = False,
    lowest: Annotated[bool, typer.Option("--min", help="Less is better.")] = False,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="The spec to write; none given: beside SPEC.", show_default=False)
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Write over the file.")] = False,
    json: Json = False,
) -> None:
    """Choose the best point of a sweep by a metric of validation rows, and write it as a spec that extends the swept one."""
    from engine.cli import render
    from engine.results.picking import Question
    from engine.results.picking import pick as choose

    if highest and lowest:
        raise UserError("--max and --min contradict each other", hint="give one of them, or neither: most metrics know what is better")
    project = load_project()
    direction = "max" if highest else "min" if lowest else None
    choice, path = choose(project, spec, Question(metric, task, direction), output, force)
    written = project.workspace.display(path)
    if json:
        render.as_json(choice.as_data() | {"written": written})
        return
    render.table(f"{choice.metric} on {', '.join(choice.tasks)}, the best point first ({choice.direction})", *choice.table())
    if choice.equals > 1:
        render.warn(
            f"{choice.equals} choices are equal in {choice.metric}: taken is the one with the fewest trainable parameters, then the first"
        )
    elif (margin := choice.margin) and margin.within:
        render.warn(
            f"{choice.best.point.name} is within the noise of the next, {margin.following.point.name}: they differ by "
            f"{margin.difference:.3g} in {choice.metric}, and {margin.source} leave ±{margin.noise:.3g}"
        )
    elif margin and margin.within is None:
        render.note(
            f"whether {choice.best.point.name} is better than {margin.following.point.name} is unknown: {choice.metric} has no interval; "
            "sweep experiment.seed too to see its noise"
        )
    render.note(f"{written} written: {choice.best.point.name}; next: engine build {written}")
