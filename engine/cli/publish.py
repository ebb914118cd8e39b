"""The command that publishes results: publish."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer

from engine.cli.app import Json, app, load_project, names_like
from engine.core.errors import UserError


@app.command()
def publish(
    target: Annotated[
        str,
        typer.Argument(
            autocompletion=names_like,
            metavar="EXPERIMENT|STEP|DIGEST",
            help="What to publish: the model of an experiment, or the folder of a step.",
        ),
    ],
    to: Annotated[str, typer.Option("--to", metavar="USER/NAME|DIR", help="A repository of the Hugging Face hub, or a folder.")],
    public: Annotated[bool, typer.Option("--public", help="Make a new repository public. Default: private.")] = False,
    base: Annotated[
        str | None,
        typer.Option(metavar="USER/NAME@COMMIT", help="Where an adapter's base was published, if it did not come from the hub."),
    ] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Replace files of the same names that somebody else wrote.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show every file and what would become of it.")] = False,
    json: Json = False,
) -> None:
    """Publish an adapter, a model or an export, with a card, its statement and checksums; other files there are never touched."""
    from engine.cli import render
    from engine.plan.decide import Action
    from engine.publishing import publishing
    from engine.publishing.destinations import Destination, Folder, Hub
    from engine.publishing.source import gather

    on_hub = publishing.is_repository(to)
    if public and not on_hub:
        raise UserError(f"--public is for repositories of the hub, and {to} is a folder", hint="write a repository as USER/NAME")
    project = load_project()
    with TemporaryDirectory(prefix="publish-") as temporary:
        source = gather(project, target, Path(temporary) / "files", on_hub, publishing.hub_base(base))
        if project.plan()[source.step.name].action is not Action.KEEP:
            render.warn(f"{source.step.name} was built from other specs, code or data than those of now")
        files = publishing.complete(project, source, to if on_hub else None)
        destination: Destination = Hub(to, not public) if on_hub else Folder(Path(to))
        items = publishing.plan(files, destination, replace)
        is_new = isinstance(destination, Hub) and destination.head is None
        revision = None if dry_run else publishing.write(source, items, destination)
        part = publishing.write_back(project, source, to, revision) if revision else None
        shown = part.relative_to(project.root) if part else None
        if json:
            found = {"step": source.step.name, "digest": source.told.digest, "to": to, "revision": revision}
            listed = [{"path": item.path, "size": item.size, "change": item.change} for item in items]
            render.as_json(found | {"files": listed, "part": str(shown) if shown else None, "written": not dry_run})
            return
        render.table(to, ["file", "bytes", ""], [[item.path, f"{item.size:,}", item.change] for item in items])
    if dry_run:
        new = f"; the repository would be made, {'public' if public else 'private'}" if is_new else ""
        render.note(f"nothing was written{new}")
        return
    changed = sum(item.change != "keep" for item in items)
    at = f", revision {revision}" if revision else ""
    render.note(f"{to}: {changed} files written{at}" if changed else f"{to} has these files already{at}")
    if shown:
        render.note(f'{shown} names it: extends = ["{shown.relative_to(shown.parts[0])}"]')
