"""The verb that says what would run: plan."""

from typing import Annotated

import typer

from engine.cli.app import MISTAKE, NOTHING_TO_DO, SOMETHING_TO_DO, Json, Targets, app, load_project

_NAMED_STEPS = 40
"""A command with more steps than this is not printed whole."""


@app.command()
def plan(
    targets: Targets = None,
    json: Json = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit with 1 where a training cannot fit the device that its spec states.")
    ] = False,
    dvc: Annotated[
        bool, typer.Option("--dvc", help="Say what plain `dvc repro` would do, which finds fewer earlier results than `engine build`.")
    ] = False,
) -> None:
    """Say what would run, why, and what it would cost; writes nothing. Exit code: 0 nothing to do, 2 something to do, 1 error."""
    from engine.cli import render
    from engine.dvc import conflicts
    from engine.plan.cost_memo import costs_of
    from engine.plan.why import acceptable
    from engine.setup.versions import drift

    project = load_project()
    selected = project.select(targets or [])
    store = project.store()
    decided = project.plan(selected.graph, store, dvc)
    costs = costs_of(project, decided, store)
    render.warnings(drift(project))
    if json:
        render.plan_as_json(decided, costs)
    else:
        for name in conflicts.FILES:
            if conflicts.mended(project.root, name):
                render.warn(
                    f"{name} has merge conflicts; the plan reads it with the records of both sides, and `engine build` writes it so"
                )
        if dvc:
            render.note("this is what plain `dvc repro` would do; for `engine build`: engine plan")
        if project.pipeline_is_stale:
            render.warn("dvc.yaml is not what the specs say yet; `engine build` writes it, plain `dvc repro` needs: engine compile")
        render.plan(selected.title, decided, costs)
        if names := acceptable(decided):
            shown = (
                names
                if len(names) <= _NAMED_STEPS
                else [*names[:_NAMED_STEPS], f"... ({len(names)} steps; all of them: engine plan --json)"]
            )
            render.note(f"only code or versions changed; where you know that to be harmless: engine accept {' '.join(shown)}")
    for name in costs.unchecked:
        render.note(f"{name}: whether it fits its device is unknown: its model is not here yet, or its architecture is not known")
    for text in costs.shortages:
        render.warn(text)
    if strict and costs.shortages:
        raise typer.Exit(MISTAKE)
    raise typer.Exit(NOTHING_TO_DO if decided.up_to_date else SOMETHING_TO_DO)
