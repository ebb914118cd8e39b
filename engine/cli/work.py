"""The command that runs one sealed job: work."""

import contextlib
import os
from pathlib import Path
from typing import Annotated

import typer

from engine.cli.app import app


@app.command()
def work(
    job: Annotated[str, typer.Argument(help="The job's key, which the build that sealed it gives.", metavar="JOB")],
    store: Annotated[str, typer.Option(help="The store: a folder, or a URL of DVC's remotes such as s3://bucket/path.", metavar="URL")],
    store_option: Annotated[
        list[str] | None,
        typer.Option(
            help="An option of the store as DVC names it, such as endpointurl=http://host:9000; no secrets.", metavar="NAME=VALUE"
        ),
    ] = None,
    attempt: Annotated[str, typer.Option(help="Names this attempt for the build that waits for it.", metavar="NAME")] = "by-hand",
    cache: Annotated[
        Path | None,
        typer.Option(
            help="Folder for content that jobs on this machine share, unless the store is a folder; default: ~/.cache/adapterbuild/jobs."
        ),
    ] = None,
    key: Annotated[
        str | None, typer.Option(help="File of an SSH key that signs the run and the checkpoints in the store; others' count for nothing.")
    ] = None,
    folder: Annotated[
        Path | None, typer.Option(help="Run in this empty folder and keep it; default: a temporary one, which is removed.")
    ] = None,
) -> None:
    """Run one sealed job of a build on this machine, with its content from the store; `engine build --on` starts this on nodes.

    Exit codes: 0: built, and its record is in the store; 1: failed; 75: stopped, and its checkpoints are in the store.
    """
    from engine.cli.render import error
    from engine.core.errors import UserError
    from engine.dvc.signatures import Signer
    from engine.jobs.folders import own_folder
    from engine.jobs.worker import StoreAddress, Worker

    try:
        options = dict(option.split("=", 1) for option in store_option or ())
    except ValueError:
        raise typer.BadParameter("must be NAME=VALUE", param_hint="--store-option") from None
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    try:
        shared = (cache or home / "adapterbuild" / "jobs").resolve()
        worker = Worker(StoreAddress(store, options), attempt, shared, Signer(key) if key else None)
        with contextlib.nullcontext(folder) if folder else own_folder() as made:
            made.mkdir(parents=True, exist_ok=True)
            if any(made.iterdir()):
                raise UserError(f"{made} is not empty", hint="name another --folder")
            status = worker.run(job, made.resolve())
    except UserError as problem:
        error(problem)
        status = 1
    raise typer.Exit(status)
