"""The verb about what lies under artifacts: verify; thin, as those of `engine.cli`."""

from typing import Annotated

import typer

from engine.cli import MISTAKE, Json, app, load_project


@app.command()
def verify(
    target: Annotated[
        str, typer.Argument(metavar="STEP|EXPERIMENT|DIGEST", help="What to check: a step, an experiment's training, or a content address.")
    ],
    rebuild: Annotated[bool, typer.Option("--rebuild", help="Build it again from nothing in a clean workspace, too, and compare.")] = False,
    json: Json = False,
) -> None:
    """Recompute every digest in an artifact's provenance: files, record, identity, inputs, code, versions. Exit code 1: one differs."""
    from engine import render
    from engine.verify import COLUMNS
    from engine.verify import verify as check

    name, checks = check(load_project(), target, rebuild)
    good = all(one.holds for one in checks)
    if json:
        render.as_json({"step": name, "verified": good, "checks": [vars(one) for one in checks]})
    else:
        render.table(name, list(COLUMNS), [[one.what, "yes" if one.holds else "NO", one.detail] for one in checks])
        render.note(f"{name} is what its provenance says" if good else f"{name} is not what its provenance says")
    if not good:
        raise typer.Exit(MISTAKE)
