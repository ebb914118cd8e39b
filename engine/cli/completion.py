"""The command that makes a shell complete commands, options, specs and names: completion."""

import os
from pathlib import Path
from typing import Annotated, Literal

import typer

from engine.cli.app import COMPLETION_VARIABLE, app
from engine.core.errors import UserError

Shell = Literal["bash", "zsh", "fish", "pwsh"]
_SHELLS: tuple[Shell, ...] = ("bash", "zsh", "fish", "pwsh")


@app.command()
def completion(
    shell: Annotated[Shell | None, typer.Option(help="The shell. Default: that of $SHELL.", show_default=False)] = None,
    install: Annotated[bool, typer.Option("--install", help="Install it for your account; takes effect in new shells.")] = False,
) -> None:
    """Print a script with which a shell completes commands, options, specs, experiments and steps; or install it."""
    from typer.completion import get_completion_script
    from typer.completion import install as write

    from engine.cli import render

    named = Path(os.environ.get("SHELL", "")).name
    chosen = shell or next((one for one in _SHELLS if one == named), None)
    if chosen is None:
        raise UserError(f"the shell '{named}' of $SHELL is not known", hint=f"name one of them: --shell {'|'.join(_SHELLS)}")
    if not install:
        typer.echo(get_completion_script(prog_name="engine", complete_var=COMPLETION_VARIABLE, shell=chosen))
        return
    _, path = write(chosen, "engine", COMPLETION_VARIABLE)
    render.note(f"{path} written; new shells of {chosen} complete the commands of engine")
