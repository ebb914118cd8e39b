"""The verbs about what was built before: why, diff, accept, gc; thin, as those of `engine.cli.app`."""

from typing import Annotated

import typer

from engine.cli.app import Json, app, load_project, ready
from engine.core.errors import UserError


@app.command()
def why(
    step: Annotated[
        str, typer.Argument(metavar="STEP|EXPERIMENT", help="A step, as `engine plan` prints it, or an experiment's training.")
    ],
    json: Json = False,
) -> None:
    """Say why one step would run: its own reasons, then those of the steps above it, up to the root causes."""
    from engine.cli import render
    from engine.plan.why import explain as explain_step

    project = load_project()
    found = explain_step(step, project.plan(), project.graph)
    if json:
        render.as_json(found.as_data())
    else:
        render.lines([*found.lines(), (found.sentence, "")])


@app.command()
def diff(
    old: Annotated[str, typer.Argument(metavar="REV", help="A git revision: a branch, a tag, HEAD~1, a commit.")],
    new: Annotated[
        str | None, typer.Argument(metavar="REV2", help="Another one; none given: the working tree.", show_default=False)
    ] = None,
    json: Json = False,
) -> None:
    """Compare two git revisions without a checkout: steps, recipes field by field, artifacts, adapters and metrics."""
    from engine.artifacts.history import differences_between
    from engine.cli import render

    found = differences_between(load_project(), old, new)
    if json:
        render.as_json(found.as_data())
        return
    render.lines(found.lines())
    for title, columns, rows in found.tables():
        render.table(title, columns, rows)


@app.command()
def accept(
    steps: Annotated[list[str], typer.Argument(metavar="STEP", help="Steps whose only reasons are changes of code or versions.")],
    json: Json = False,
) -> None:
    """Keep results although code or versions have changed, when you know that the change is harmless; it is written into the run record."""
    from engine.artifacts.accept import accept as keep
    from engine.artifacts.accept import as_data
    from engine.cli import render

    project = load_project()
    ready(project.root)
    accepted = keep(project, steps)
    if json:
        render.as_json(as_data(accepted))
        return
    for name in dict.fromkeys(steps):
        render.note(next((str(one) for one in accepted if one.step.name == name), f"{name} is up to date: there is nothing to accept"))


@app.command()
def gc(
    force: Annotated[bool, typer.Option("--force", help="Remove it; without this, only say what would go.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go; the default.")] = False,
    keep: Annotated[
        list[str] | None, typer.Option(metavar="DIGEST", help="Keep this artifact too (see engine adapters); repeatable.")
    ] = None,
    tips: Annotated[
        bool, typer.Option("--tips", help="Of git, keep only what branches, tags and stashes name now, not all commits.")
    ] = False,
    json: Json = False,
) -> None:
    """Remove what nothing refers to: checkpoints, leftovers, and results that no spec, git revision or kept adapter names."""
    from engine.artifacts.garbage_collection import GROUP_COLUMNS, collect
    from engine.cli import render

    if force and dry_run:
        raise UserError("--force and --dry-run contradict each other", hint="look first, then run it again with --force alone")
    project = load_project()
    found = collect(project, keep or [], history=not tips, force=force)
    if json:
        render.as_json(found.as_data(project.root, removed=force))
        return
    if rows := found.rows():
        render.table("removed" if force else "would be removed", GROUP_COLUMNS, rows)
    render.lines([*found.remarks(), (found.summary(removed=force), "")])
