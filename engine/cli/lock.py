"""The verb about versions of packages: `engine lock`; thin, as those of `engine.cli.app`."""

from typing import Annotated

import typer

from engine.cli.app import Json, app, load_project


@app.command()
def lock(
    upgrade: Annotated[bool, typer.Option("--upgrade", help="Move the lock to what is installed, and say what reruns.")] = False,
    json: Json = False,
) -> None:
    """Write adapterbuild.lock from what is installed: versions of packages that decide results; what it names stays without --upgrade."""
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
            f"{name} {have} is installed, {LOCK} says {locked} (engine lock --upgrade moves it; pip install {name}=={locked} goes back)"
        )
    if found.absent:
        render.note(f"not installed here: {', '.join(found.absent)}")
    runs = sum(decision.action == "run" for decision in found.reruns)
    moved = f"{LOCK} written" if found.versions else f"{LOCK} stays as it is"
    told = f": {runs} steps will run, {len(found.reruns) - runs} may" if found.reruns else ": nothing reruns for it" if upgrade else ""
    render.note(moved + told)
