"""The command about versions of packages: lock."""

from typing import Annotated

import typer

from engine.cli.app import Json, app, load_project


@app.command()
def lock(
    upgrade: Annotated[
        bool, typer.Option("--upgrade", help="Update the lock to the installed versions, and list the steps that rerun.")
    ] = False,
    json: Json = False,
) -> None:
    """Write adapterbuild.lock: the installed versions of packages that affect results; locked versions change only with --upgrade."""
    from engine.cli import render
    from engine.identity.environment import LOCK
    from engine.setup.versions import lock as write
    from engine.setup.versions import upgrade as move

    project = load_project()
    found = move(project) if upgrade else write(project.root)
    if json:
        render.as_json(found.as_data())
        return
    render.lines(found.lines())
    for name, locked, have in found.behind:
        render.warn(
            f"{name} {have} is installed, but {LOCK} has {locked} (engine lock --upgrade updates it; pip install {name}=={locked} reverts)"
        )
    if found.absent:
        render.note(f"not installed: {', '.join(found.absent)}")
    runs = sum(decision.action == "run" for decision in found.reruns)
    moved = f"{LOCK} written" if found.versions else f"{LOCK} is unchanged"
    effect = f": {runs} steps will run, {len(found.reruns) - runs} may run" if found.reruns else ": nothing reruns" if upgrade else ""
    render.note(moved + effect)
