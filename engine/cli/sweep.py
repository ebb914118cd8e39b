"""The command about sweeps: pick."""

from pathlib import Path
from typing import Annotated

import typer

from engine.cli.app import Json, app, load_project, specs_like, tasks_like
from engine.core.errors import UserError


@app.command()
def pick(
    spec: Annotated[Path, typer.Argument(autocompletion=specs_like, metavar="SPEC", help="A spec with a sweep.")],
    metric: Annotated[
        str | None,
        typer.Option(
            metavar="METRIC",
            help="A metric on validation rows. Default: the first if evaluation.split is validation, else validation_loss, which "
            "does not compare objectives: for these validation_accuracy or validation_cross_entropy.",
            show_default=False,
        ),
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(
            autocompletion=tasks_like, metavar="TASK", help="Rank by one task. Default: the mean over all tasks.", show_default=False
        ),
    ] = None,
    highest: Annotated[bool, typer.Option("--max", help="Higher is better.")] = False,
    lowest: Annotated[bool, typer.Option("--min", help="Lower is better.")] = False,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="The spec to write. Default: next to SPEC.", show_default=False)
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite FILE.")] = False,
    json: Json = False,
) -> None:
    """Pick the best point of a sweep by a metric on validation rows, and write it as a spec that extends the swept one."""
    from engine.cli import render
    from engine.results.picking import Question
    from engine.results.picking import pick as choose

    if highest and lowest:
        raise UserError("--max and --min contradict each other", hint="give one of them, or neither: most metrics have a direction")
    project = load_project()
    direction = "max" if highest else "min" if lowest else None
    choice, path = choose(project, spec, Question(metric, task, direction), output, force)
    written = project.workspace.display(path)
    if json:
        render.as_json(choice.as_data() | {"written": written})
        return
    render.table(f"{choice.metric} on {', '.join(choice.tasks)}, best point first ({choice.direction})", *choice.table())
    if metric is None and choice.sweep.is_over_objective and choice.metric in choice.sweep.comparable:
        render.note(f"the points differ in training.objective, whose losses do not compare: picked by {choice.metric}")
    if choice.equals > 1:
        render.warn(f"{choice.equals} choices tie in {choice.metric}: picked the one with the fewest trainable parameters, then the first")
    elif (margin := choice.margin) and margin.within:
        render.warn(
            f"{choice.best.point.name} is within the noise of the second best, {margin.following.point.name}: they differ by "
            f"{margin.difference:.3g} in {choice.metric}, with a noise of ±{margin.noise:.3g} (from {margin.source})"
        )
    elif margin and margin.within is None:
        render.note(
            f"cannot tell whether {choice.best.point.name} is better than {margin.following.point.name}: {choice.metric} has no interval; "
            "sweep experiment.seed too to measure its noise"
        )
    render.note(f"{written} written: {choice.best.point.name}; next: engine build {written}")
