"""The commands about specs and the files generated from them: check, schema, show, compile, resolve, merge-file."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from engine.cli.app import Json, Specs, app, load_project, ready, specs_like
from engine.core.errors import UserError, did_you_mean


@app.command()
def check(specs: Specs = None) -> None:
    """Check specs: keys, values, references and files; reports all problems at once, with file, line and hint."""
    from engine.build.machine import missing_loggers
    from engine.cli import render
    from engine.setup.versions import drift

    project = load_project()
    chosen = project.named(specs or [])
    steps = len(project.select([str(path) for path in specs or []]).graph) + 1  # `resolve`, DVC's first, which the plan counts too
    render.warnings([*project.outline.warnings, *missing_loggers(project.outline.loggers), *drift(project)])
    render.note(f"{len(chosen)} {'spec' if len(chosen) == 1 else 'specs'} OK, {steps} steps")


@app.command()
def schema(
    write: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the schema to FILE.")] = None,
    check: Annotated[Path | None, typer.Option(metavar="FILE", help="Exit with 1 if FILE is out of date.")] = None,
) -> None:
    """Print the JSON Schema of specs, for editors that complete and check TOML."""
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
    spec: Annotated[Path, typer.Argument(autocompletion=specs_like, metavar="SPEC", help="A spec of the workspace.")],
    json: Json = False,
    deepspeed: Annotated[bool, typer.Option("--deepspeed", help="Show the DeepSpeed configuration of its training instead.")] = False,
    tool: Annotated[
        str | None,
        typer.Option("--as", metavar="TOOL", help="Show the nearest configuration of axolotl, llamafactory or trl instead."),
    ] = None,
) -> None:
    """Show the resolved spec: every value, and the file and line that it comes from."""
    from engine.cli import render
    from engine.spec.explain import explain_all

    chosen = load_project().chosen([spec])
    if deepspeed:
        from engine.compile.deepspeed import configuration

        # Resources cannot be swept: all points have the same configuration.
        render.configuration(configuration(chosen[0]))
        return
    if tool is not None:
        from engine.importing.exporting import EXPORTERS, export

        if tool not in EXPORTERS:
            raise UserError(f"--as names no known tool: {tool}", hint=did_you_mean(tool, EXPORTERS))
        render.document(export(chosen[0], tool))
        return
    values = explain_all(chosen)
    if json:
        render.as_json({"values": [v.as_data() for v in values]})
    else:
        render.lines((f"{v.named} = {v.value}", f"{v.where.file}:{v.where.line}" if v.where else "default") for v in values)


@app.command()
def compile(
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing; exit with 1 if the files are out of date, and show the differences.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Overwrite files that were edited by hand.")] = False,
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
            shown = "\n".join([f"changed: {', '.join(moved)}", *stale.values()] if moved else stale.values())
            raise UserError(f"{' and '.join(stale)} {'are' if len(stale) > 1 else 'is'} out of date\n{shown}", hint="run: engine compile")
        render.note("dvc.yaml and params.yaml are up to date")
        return
    written = project.write_compiled(force)
    said = f"{' and '.join(written)} written: {len(project.graph) + 1} steps"
    render.note(said if written else "dvc.yaml and params.yaml are up to date")


@app.command(hidden=True)
def resolve() -> None:
    """Write every step's identity and resources, and params.yaml; DVC runs this first."""
    project = load_project()
    project.resolve()
    project.order_lock()


@app.command(name="merge-file", hidden=True)
def merge_file(base: Path, ours: Path, theirs: Path, path: str) -> None:
    """Merge a generated file, BASE and THEIRS into OURS; git runs this. PATH is its name in the repository."""
    from engine.dvc import conflicts

    try:
        conflicts.merge_file(base, ours, theirs, path)
    except ValueError as error:
        raise UserError(f"{path} cannot be merged step by step: {error}") from None
