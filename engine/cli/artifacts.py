"""The verbs about what lies under artifacts: adapters, verify; thin, as those of `engine.cli.app`."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from engine.cli.app import MISTAKE, Json, Specs, app, load_project


@app.command()
def adapters(
    specs: Specs = None,
    metric: Annotated[str | None, typer.Option(help="The metric in the list; none given: the first one.", show_default=False)] = None,
    everything: Annotated[bool, typer.Option("--all", help="Those of git's history and of the cache, too.")] = False,
    step: Annotated[str | None, typer.Option(metavar="PATTERN", help="Only steps of this name, such as 'train-topic*'.")] = None,
    method: Annotated[str | None, typer.Option(metavar="PATTERN", help="Only adapters trained by this method, such as lora.")] = None,
    base: Annotated[str | None, typer.Option(metavar="PATTERN", help="Only adapters of this base, as the list shows it.")] = None,
    digest: Annotated[str | None, typer.Option(metavar="DIGEST", help="Only adapters whose content address begins so.")] = None,
    fetch: Annotated[str | None, typer.Option(metavar="DIGEST", help="Write this one to a folder, from DVC's cache or remote.")] = None,
    output: Annotated[Path | None, typer.Option(metavar="DIR", help="Where --fetch writes it.")] = None,
    with_base: Annotated[
        Literal["auto", "place", "name"],
        typer.Option("--base-model", help="What --fetch writes of its base: a copy, its name, or a copy unless it is of the hub."),
    ] = "auto",
    json: Json = False,
) -> None:
    """List adapters: content address, base, spec, scores, whether the cache holds them; or fetch one, even after its spec moved on."""
    from engine.artifacts.adapters import Choice, as_data, past, rows
    from engine.artifacts.adapters import adapters as collect
    from engine.cli import render
    from engine.results.table import measured_metric

    wanted = Choice(step, method, base, digest)
    project = load_project()
    if fetch is not None:
        _fetch(project, fetch, output, with_base, json)
        return
    store, chosen = project.store(), project.chosen(specs or [])
    found = collect(chosen, project.graph, store, project.plan())
    if everything:
        named = {spec.path for spec in chosen}
        known = collect(project.specs, project.graph, store, project.plan()) if specs else found
        found += tuple(one for one in past(project.root, store, [one.digest for one in known]) if not specs or one.spec in named)
    found = tuple(one for one in found if one in wanted)
    if json:
        render.as_json(as_data(found))
    elif found:
        render.table("adapters", *rows(found, measured_metric([one.metrics for one in found], metric)))
    else:
        render.note("there is no such adapter" if step or method or base or digest else "none of these specs trains an adapter")


def _fetch(project: Any, digest: str, output: Path | None, base: Literal["auto", "place", "name"], json: bool) -> None:
    from engine.artifacts.fetch import fetch
    from engine.cli import render
    from engine.core.digests import short

    folder = output or Path(f"adapter-{short(digest)}")
    fetched = fetch(project.root, project.store(), digest, folder, base)
    told, ran, loadable = fetched.told, fetched.ran, fetched.loadable
    if loadable.lacking:
        render.warn(f"{loadable.lacking}: {folder}/adapter_config.json names no base; {folder}/README.md says what to do")
    if json:
        found = {"digest": told.digest, "step": told.step, "folder": str(folder), "base": None if loadable.lacking else loadable.base}
        render.as_json(found | {"git_commit": ran.git_commit if ran else None})
    else:
        render.note(f"{folder} is {told.step} {short(told.digest)}; base: {loadable.base}")


@app.command()
def verify(
    target: Annotated[
        str, typer.Argument(metavar="STEP|EXPERIMENT|DIGEST", help="What to check: a step, an experiment's training, or a content address.")
    ],
    rebuild: Annotated[bool, typer.Option("--rebuild", help="Build it again from nothing in a clean workspace, too, and compare.")] = False,
    json: Json = False,
) -> None:
    """Recompute every digest in an artifact's provenance: files, record, identity, inputs, code, versions. Exit code 1: one differs."""
    from engine.artifacts.verify import COLUMNS
    from engine.artifacts.verify import verify as check
    from engine.cli import render

    name, checks = check(load_project(), target, rebuild)
    good = all(one.holds for one in checks)
    if json:
        render.as_json({"step": name, "verified": good, "checks": [vars(one) for one in checks]})
    else:
        render.table(name, list(COLUMNS), [[one.what, "yes" if one.holds else "NO", one.detail] for one in checks])
        render.note(f"{name} is what its provenance says" if good else f"{name} is not what its provenance says")
    if not good:
        raise typer.Exit(MISTAKE)
