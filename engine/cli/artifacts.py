"""The commands about artifacts: adapters, verify."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from engine.cli.app import MISTAKE, Json, Specs, app, load_project, names_like


@app.command()
def adapters(
    specs: Specs = None,
    metric: Annotated[
        str | None, typer.Option(metavar="METRIC", help="The metric to show. Default: the first.", show_default=False)
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Include adapters that only git's history or the cache has.")] = False,
    step: Annotated[str | None, typer.Option(metavar="PATTERN", help="Only adapters of matching steps, such as 'train-topic*'.")] = None,
    method: Annotated[
        str | None, typer.Option(metavar="PATTERN", help="Only adapters trained with a matching method, such as lora.")
    ] = None,
    base: Annotated[str | None, typer.Option(metavar="PATTERN", help="Only adapters of a matching base, as shown in the list.")] = None,
    digest: Annotated[str | None, typer.Option(metavar="DIGEST", help="Only adapters whose content address starts with DIGEST.")] = None,
    fetch: Annotated[str | None, typer.Option(metavar="DIGEST", help="Write this adapter to a folder, from DVC's cache or remote.")] = None,
    output: Annotated[Path | None, typer.Option(metavar="DIR", help="The folder that --fetch writes. Default: adapter-DIGEST.")] = None,
    with_base: Annotated[
        Literal["auto", "place", "name"],
        typer.Option("--base-model", help="How --fetch provides the base: a copy (place), its name, or a copy unless it is on the hub."),
    ] = "auto",
    json: Json = False,
) -> None:
    """List adapters: content address, base, spec, metrics, and whether the cache has them; or fetch one, even if its spec has changed."""
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
        render.as_json({"adapters": as_data(found)})
    elif found:
        render.table("adapters", *rows(found, measured_metric([one.metrics for one in found], metric)))
    else:
        render.note("no adapter matches" if step or method or base or digest else "none of these specs trains an adapter")


def _fetch(project: Any, digest: str, output: Path | None, base: Literal["auto", "place", "name"], json: bool) -> None:
    from functools import partial

    from engine.artifacts.fetch import fetch
    from engine.artifacts.prompts import prompts
    from engine.cli import render
    from engine.core.digests import short

    folder = output or Path(f"adapter-{short(digest)}")
    fetched = fetch(project.root, project.store(), digest, folder, base, prompts=partial(prompts, project))
    provenance, ran, loadable = fetched.provenance, fetched.ran, fetched.loadable
    if loadable.lacking:
        render.warn(f"{loadable.lacking}: {folder}/adapter_config.json names no base; see {folder}/README.md")
    if json:
        found = {
            "digest": provenance.digest,
            "step": provenance.step,
            "folder": str(folder),
            "base": None if loadable.lacking else loadable.base,
        }
        render.as_json(found | {"git_commit": ran.git_commit if ran else None})
    else:
        render.note(f"{folder} written: {provenance.step} {short(provenance.digest)}, base {loadable.base}")


@app.command()
def verify(
    target: Annotated[
        str,
        typer.Argument(
            autocompletion=names_like,
            metavar="STEP|EXPERIMENT|DIGEST",
            help="A step, an experiment (its training), or a content address.",
        ),
    ],
    rebuild: Annotated[bool, typer.Option("--rebuild", help="Also rebuild it from scratch in a clean workspace, and compare.")] = False,
    json: Json = False,
) -> None:
    """Recompute every digest in an artifact's provenance: files, record, identity, inputs, code, versions. Exit code 1 if any differs."""
    from engine.artifacts.verify import COLUMNS
    from engine.artifacts.verify import verify as check
    from engine.cli import render

    name, checks = check(load_project(), target, rebuild)
    good = all(one.holds for one in checks)
    if json:
        render.as_json({"step": name, "verified": good, "checks": [vars(one) for one in checks]})
    else:
        render.table(name, list(COLUMNS), [[one.what, "yes" if one.holds else "NO", one.detail] for one in checks])
        render.note(f"{name} matches its provenance" if good else f"{name} does not match its provenance")
    if not good:
        raise typer.Exit(MISTAKE)
