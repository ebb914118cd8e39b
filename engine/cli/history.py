"""The commands about earlier builds: why, diff, accept, gc."""

from typing import Annotated

import typer

from engine.cli.app import Json, app, load_project, names_like, ready
from engine.core.errors import UserError


@app.command()
def why(
    step: Annotated[
        str,
        typer.Argument(
            autocompletion=names_like,
            metavar="STEP|EXPERIMENT",
            help="A step, as printed by `engine plan`, or an experiment (its training).",
        ),
    ],
    json: Json = False,
) -> None:
    """Explain why a step would run: its own reasons, those of the steps it depends on, and the root causes."""
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
    old: Annotated[
        str, typer.Argument(metavar="REV", help="A git revision: a branch, a tag, HEAD~1, a commit; or two: main...branch, main..branch.")
    ],
    new: Annotated[
        str | None, typer.Argument(metavar="REV2", help="Another revision. Default: the working tree.", show_default=False)
    ] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the comparison in Markdown, for a pull request.")] = False,
    remote: Annotated[
        bool,
        typer.Option("--remote", help="Fetch what the comparison reads from DVC's remote: statements, and both revisions' predictions."),
    ] = False,
    json: Json = False,
) -> None:
    """Compare two git revisions without a checkout: steps, recipes, artifacts, adapters, and metrics with tests on the same rows."""
    from engine.artifacts.history import differences_between
    from engine.cli import render
    from engine.dvc.remote import Remote, Unreadable

    if markdown and json:
        raise UserError("--markdown and --json exclude each other", hint="give one of them")
    project = load_project()
    if remote:
        with Remote(project.root) as there:
            try:
                found = differences_between(project, old, new, there.pull)
            except Unreadable as error:
                render.warn(f"DVC's remote cannot be read, and what is not in the cache is not compared: {error}")
                found = differences_between(project, old, new)
    else:
        found = differences_between(project, old, new)
    if json:
        render.as_json(found.as_data())
        return
    if markdown:
        told = [f"{text}   {remark}".rstrip() for text, remark in found.lines()]
        render.as_markdown(told, found.tables())
        return
    render.lines(found.lines())
    for title, columns, rows, legend in found.tables():
        render.table(title, columns, rows, legend)


@app.command()
def accept(
    steps: Annotated[
        list[str],
        typer.Argument(
            autocompletion=names_like,
            metavar="STEP",
            help="Steps that would run only because code or versions changed.",
        ),
    ],
    json: Json = False,
) -> None:
    """Keep results although code or versions have changed, if you know that the change is harmless; the run record notes it."""
    from engine.artifacts.accept import accept as keep
    from engine.artifacts.accept import as_data
    from engine.cli import render

    project = load_project()
    ready(project.root)
    accepted = keep(project, steps)
    if json:
        render.as_json({"accepted": as_data(accepted)})
        return
    for name in dict.fromkeys(steps):
        render.note(next((str(one) for one in accepted if one.step.name == name), f"{name} is up to date: nothing to accept"))


@app.command()
def gc(
    force: Annotated[bool, typer.Option("--force", help="Remove the files; without it, only list them.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only list what would be removed (the default).")] = False,
    keep: Annotated[
        list[str] | None, typer.Option(metavar="DIGEST", help="Also keep this artifact (see engine adapters); repeatable.")
    ] = None,
    tips: Annotated[
        bool, typer.Option("--tips", help="Keep only what current branches, tags and stashes refer to, not all commits.")
    ] = False,
    json: Json = False,
) -> None:
    """Remove unreferenced files: checkpoints, leftovers, and results that no spec, git revision or kept adapter refers to."""
    from engine.artifacts.garbage_collection import GROUP_COLUMNS, collect
    from engine.cli import render

    if force and dry_run:
        raise UserError("--force and --dry-run contradict each other", hint="run it with --dry-run first, then with --force")
    project = load_project()
    found = collect(project, keep or [], history=not tips, force=force)
    if json:
        render.as_json(found.as_data(project.root, removed=force))
        return
    if rows := found.rows():
        render.table("removed" if force else "would be removed", GROUP_COLUMNS, rows)
    render.lines([*found.remarks(), (found.summary(removed=force), "")])
