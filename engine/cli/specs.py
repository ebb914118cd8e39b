"""The verbs about specs and the files that are generated from them: check, schema, show, compile, resolve, merge-file."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from engine.cli.app import Json, Specs, app, load_project, ready
from engine.core.errors import UserError


@app.command()
def check(specs: Specs = None) -> None:
    """Check specs: keys, values, references and files; every problem at once, with file, line and hint."""
    from engine.build.machine import missing_loggers
    from engine.cli import render
    from engine.setup.versions import drift

    project = load_project()
    chosen = project.named(specs or [])
    steps = len(project.select([str(path) for path in specs or []]).graph) + 1  # `resolve`, DVC's first, which the plan counts too
    render.warnings([*project.outline.warnings, *missing_loggers(project.outline.loggers), *drift(project)])
    render.note(f"{len(chosen)} {'spec is' if len(chosen) == 1 else 'specs are'} fine: {steps} steps")


@app.command()
def schema(
    write: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the schema to FILE.")] = None,
    check: Annotated[Path | None, typer.Option(metavar="FILE", help="Exit with 1 where FILE is not the schema.")] = None,
) -> None:
    """The JSON Schema of specs, for editors that complete and check TOML."""
    from engine.spec.schema import schema_text

    text = schema_text()
    if write:
        write.write_text(text, "utf-8")
    elif check and (not check.exists() or check.read_text("utf-8") != text):
        raise UserError(f"{check} is not the schema of this version", hint=f"run: engine schema --write {check}")
    elif not check:
        sys.stdout.write(text)


@app.command()
def show(
    spec: Annotated[Path, typer.Argument(metavar="SPEC", help="One spec of the workspace.")],
    json: Json = False,
    deepspeed: Annotated[bool, typer.Option("--deepspeed", help="Show the DeepSpeed configuration of its training instead.")] = False,
) -> None:
    """The resolved spec: every value, and the file and line that it comes from."""
    from engine.cli import render
    from engine.spec.explain import explain_all

    chosen = load_project().chosen([spec])
    if deepspeed:
        from engine.compile.deepspeed import configuration

        # No resource can be swept: the configuration of all points is the same.
        render.as_json(configuration(chosen[0]))
        return
    values = explain_all(chosen)
    if json:
        render.as_json([v.as_data() for v in values])
    else:
        render.lines((f"{v.named} = {v.value}", f"{v.where.file}:{v.where.line}" if v.where else "default") for v in values)


@app.command()
def compile(
    check: Annotated[bool, typer.Option("--check", help="Write nothing; exit with 1 where the files are stale, and say how.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Write over files that were edited by hand.")] = False,
) -> None:
    """Write dvc.yaml and params.yaml from the specs."""
    from engine.cli import render

    project = load_project()
    if not check:
        ready(project.root)
    if check:
        stale = project.stale()
        if stale:
            moved = project.moved_specs()
            shown = "\n".join([f"moved: {', '.join(moved)}", *stale.values()] if moved else stale.values())
            raise UserError(
                f"{' and '.join(stale)} {'are' if len(stale) > 1 else 'is'} not what the specs say\n{shown}", hint="run: engine compile"
            )
        render.note("dvc.yaml and params.yaml are what the specs say")
        return
    written = project.write_compiled(force)
    said = f"{' and '.join(written)} written: {len(project.graph) + 1} steps"
    render.note(said if written else "dvc.yaml and params.yaml were up to date")


@app.command(hidden=True)
def resolve() -> None:
    """What DVC runs first: write every step's identity, its resources, and params.yaml."""
    project = load_project()
    project.resolve()
    project.order_lock()


@app.command(name="merge-file", hidden=True)
def merge_file(base: Path, ours: Path, theirs: Path, path: str) -> None:
    """What git runs to merge a generated file: BASE and THEIRS into OURS; PATH is its name in the repository."""
    from engine.dvc import conflicts

    try:
        conflicts.merge_file(base, ours, theirs, path)
    except ValueError as error:
        raise UserError(f"{path} cannot be merged step by step: {error}") from None
