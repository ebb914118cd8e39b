"""The command that shows what would run: plan."""

from typing import Annotated

import typer

from engine.cli.app import MISTAKE, NOTHING_TO_DO, SOMETHING_TO_DO, Json, Targets, app, load_project
from engine.core.errors import UserError

_NAMED_STEPS = 40
"""An `engine accept` command with more steps is abbreviated."""


@app.command()
def plan(
    targets: Targets = None,
    json: Json = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit with 1 if a training does not fit the device memory stated in its spec.")
    ] = False,
    fail_on: Annotated[
        str | None,
        typer.Option(
            metavar="run",
            help="Exit with 1 if a step would run or may run, and else with 0, for a CI that only restores.",
            show_default=False,
        ),
    ] = None,
    remote: Annotated[
        bool, typer.Option("--remote", help="Ask DVC's remote too what others have built; copies records and listings into the cache.")
    ] = False,
    dvc: Annotated[
        bool, typer.Option("--dvc", help="Show what plain `dvc repro` would do; it finds fewer earlier results than `engine build`.")
    ] = False,
) -> None:
    """Show what would run, why, and at what cost; writes nothing. Exit code: 0 nothing to do, 2 something to do, 1 error."""
    if fail_on not in (None, "run"):
        raise UserError(f"--fail-on must be run, got '{fail_on}'")
    from engine.build.pulling import Puller, pull_all
    from engine.cli import render
    from engine.dvc import conflicts, dvcfile
    from engine.dvc.remote import Remote
    from engine.plan.cost_memo import costs_of
    from engine.plan.decide import Action
    from engine.plan.why import acceptable
    from engine.setup.versions import drift

    project = load_project()
    selected = project.select(targets or [])
    store = project.store()
    if remote:
        if dvc:
            raise UserError("--remote and --dvc exclude each other: `dvc repro` asks no remote for runs", hint="leave one out")
        with Remote(project.root) as there:
            pull_all(project, selected.graph, Puller(store, there, render.warn, download=False))
            if fail_on and there.failed:
                raise UserError(
                    f"DVC's remote cannot be read: {there.failed}", hint="what it has is unknown: check its address and its keys"
                )
    decided = project.plan(selected.graph, store, dvc)
    costs = costs_of(project, decided, store)
    render.warnings(drift(project))
    if json:
        render.plan_as_json(decided, costs)
    else:
        for name in conflicts.FILES:
            if conflicts.mended(project.root, name):
                render.warn(
                    f"{name} has merge conflicts; the plan takes the records of both sides, and `engine build` writes the merged file"
                )
        if dvc:
            render.note("this is the plan of plain `dvc repro`; for that of `engine build`, run: engine plan")
        if project.pipeline_is_stale and (project.root / dvcfile.PIPELINE).exists():
            render.warn("dvc.yaml is out of date; `engine build` updates it; before plain `dvc repro`, run: engine compile")
        render.plan(selected.title, decided, costs)
        if names := acceptable(decided):
            shown = (
                names
                if len(names) <= _NAMED_STEPS
                else [*names[:_NAMED_STEPS], f"... ({len(names)} steps; to list all: engine plan --json)"]
            )
            render.note(f"only code or versions changed; if you know that this is harmless, run: engine accept {' '.join(shown)}")
    for name in costs.unchecked:
        render.note(f"{name}: cannot tell whether it fits its device: its model is not available yet, or its architecture is unknown")
    for text in costs.shortages:
        render.warn(text)
    if strict and costs.shortages:
        raise typer.Exit(MISTAKE)
    if fail_on:
        # Without `resolve`, which prepares a clone for DVC and builds nothing.
        running = [one.name for one in decided.decisions if one.name in selected.graph and one.action in (Action.RUN, Action.MAYBE)]
        if running:
            more = f" and {len(running) - 5} more" if len(running) > 5 else ""
            raise UserError(
                f"not built: {', '.join(running[:5])}{more}", hint="build and push them, then commit dvc.lock: engine build; engine push"
            )
        raise typer.Exit(NOTHING_TO_DO)
    raise typer.Exit(NOTHING_TO_DO if decided.up_to_date else SOMETHING_TO_DO)
