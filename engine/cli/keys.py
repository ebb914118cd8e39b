"""The command about signed runs: keys."""

from pathlib import Path
from typing import Annotated

import typer

from engine.cli.app import app, load_project


@app.command()
def keys(
    allow: Annotated[
        str | None, typer.Option(help="Add a key to the allowed signers, under this name, such as alice@example.org.", metavar="NAME")
    ] = None,
    public: Annotated[
        Path | None,
        typer.Option(help="With --allow: the public key's file; default: the key that signs here.", metavar="FILE"),
    ] = None,
) -> None:
    """Show which SSH key signs runs here, and whose runs count; or add a key to the workspace's file of allowed signers."""
    from engine.cli import render
    from engine.core.errors import UserError
    from engine.dvc.sharing import allow as add
    from engine.dvc.sharing import sharing
    from engine.dvc.signatures import fingerprint, public_key, signers

    project = load_project()
    if allow:
        key = None
        if public and (key := public_key(public.read_text("utf-8", "replace") if public.is_file() else "")) is None:
            raise UserError(f"{public} is no public key of SSH", hint="name the .pub file")
        path = add(project.root, allow, key)
        render.note(f"{path.name} allows {allow}; commit it, so that others trust these runs")
    elif public:
        raise UserError("--public needs --allow NAME")
    found = sharing(project.root)
    signer = found.key_in_use()
    told = [("signs with:", signer.key), ("", fingerprint(signer.public))] if signer else [("signs with:", "no key")]
    if found.allowed_signers is None:
        told.append(("counts:", "every run in the store; [tool.adapterbuild.store] allowed_signers is not set"))
    else:
        told.append(("counts:", f"what is signed by a key in {found.allowed_signers.name}"))
        told += [("", f"{name} {fingerprint(key)}") for name, key in signers(found.allowed_signers)]
    render.lines((f"{what:<11} {value}", "") for what, value in told)
