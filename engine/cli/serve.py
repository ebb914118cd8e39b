"""The command that serves built models over HTTP."""

import importlib.util
import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from engine.cli.app import INTERRUPTED, app
from engine.cli.talk import models_of
from engine.core.errors import UserError

if TYPE_CHECKING:
    from engine.rows.answers import Model


@app.command()
def serve(
    targets: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="EXPERIMENT|DIGEST|FOLDER",
            help="Experiments, specs, content addresses of adapters, or models' folders. Default: every experiment that is built.",
            show_default=False,
        ),
    ] = None,
    host: Annotated[str, typer.Option(metavar="HOST", help="The address to listen on; 0.0.0.0 for other machines too.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(metavar="PORT", min=0, max=65535, help="The port to listen on; 0 for a free one.")] = 8000,
    api_key_env: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Environment variable with the API key that requests must have. Default: no key is needed."),
    ] = None,
    batch_rows: Annotated[
        int, typer.Option(metavar="N", min=1, help="Maximum requests to one model that are generated as one batch; 1: each alone.")
    ] = 64,
    most_waiting: Annotated[
        int, typer.Option("--max-waiting", metavar="N", min=1, help="Maximum requests that wait; further ones get status 429.")
    ] = 1000,
    engine: Annotated[
        Literal["own", "vllm"], typer.Option(help="What computes: the predict step's own code, or vLLM, where it is installed.")
    ] = "own",
) -> None:
    """Serve built models with an OpenAI-compatible API, each answer as its predict step gives it; ^C finishes requests in flight."""
    from engine.cli import render

    key = _key(api_key_env)
    models, root = models_of(targets) if targets else _built()
    if engine == "vllm":
        _exec_vllm(models, host, port, key)
    if missing := [name for name in ("starlette", "uvicorn") if importlib.util.find_spec(name) is None]:
        raise UserError(f"engine serve needs {' and '.join(missing)}", hint="pip install 'adapterbuild[serve]'")
    if key is None and host not in ("127.0.0.1", "::1", "localhost"):
        render.warn(f"whoever reaches {host}:{port} can ask these models: --api-key-env NAME asks for a key")

    from engine.serving.queueing import Queue
    from engine.serving.served import together
    from engine.serving.server import Endpoint, run

    choice = together(models)

    def ready(url: str) -> None:
        render.note(f"serving on {url}")
        for one in choice.models:
            render.note(f"  {' or '.join(one.ids)}, on {one.base}: {', '.join(one.model.tasks)}")
        auth = f' -H "Authorization: Bearer ${api_key_env}"' if key else ""
        body = f'{{"model": "{choice.models[0].model.name}", "messages": [{{"role": "user", "content": "…"}}]}}'
        render.note(f"  curl {url}/chat/completions -H 'content-type: application/json'{auth} -d '{body}'")
        render.note("^C ends: requests in flight are finished; ^C again ends at once")

    def stopping(in_flight: int) -> None:
        render.note(f"finishing {in_flight} requests; ^C again ends at once" if in_flight else "ended")

    try:
        run(
            choice,
            Queue(root, models, batch_rows, most_waiting),
            Endpoint(host, port, key, ready, lambda name: render.note(f"loading {name} …"), stopping, INTERRUPTED),
        )
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None


def _key(variable: str | None) -> str | None:
    if variable is None:
        return None
    if not (key := os.environ.get(variable)):
        raise UserError(f"the environment variable {variable}, which --api-key-env names, is not set")
    return key


def _built() -> "tuple[list[Model], Path]":
    """The models of all experiments that are built; names the others."""
    from engine.cli import render
    from engine.cli.app import load_project
    from engine.rows.answers import of_experiment

    project = load_project()
    found, missing = [], []
    for spec in project.specs:
        try:
            found.append(of_experiment(project, spec.name))
        except UserError:
            missing.append(spec.name)
    if not found:
        raise UserError("no experiment of this workspace is built", hint="run: engine build")
    if missing:
        render.note(f"not built, and not served: {', '.join(missing)}")
    return found, project.root


def _exec_vllm(models: "Sequence[Model]", host: str, port: int, key: str | None) -> None:
    """Become vLLM; raises UserError with the command where it is not installed."""
    from engine.cli import render
    from engine.serving import vllm

    command = vllm.command(models, host, port)
    for difference in vllm.differences(models):
        render.warn(difference)
    if not vllm.is_installed():
        shown = shlex.join(["vllm", *command[3:]])
        raise UserError("vLLM is not installed in this Python", hint=f"pip install vllm, or where it is installed: {shown}")
    # vLLM reads the key from its environment: on the command line every user of the machine could read it.
    environment = os.environ | ({"VLLM_API_KEY": key} if key else {})
    os.execve(command[0], command, environment)
