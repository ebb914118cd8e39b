"""The command that turns experiments of other tools into specs: import."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from engine.cli.app import Json, Settings, app, load_project

if TYPE_CHECKING:
    from engine.importing.importing import Import
    from engine.importing.reading import Entry


@app.command(name="import")
def import_(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE…", help="Configurations of axolotl, LLaMA-Factory (with its dataset_info.json) or TRL.", show_default=False
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="The folder of the specs, in the workspace.")] = Path(
        "specs"
    ),
    tool: Annotated[
        str | None, typer.Option("--from", metavar="TOOL", help="axolotl, llamafactory or trl; recognised by the keys if not given.")
    ] = None,
    name: Annotated[str | None, typer.Option("--name", metavar="NAME", help="Name of the experiment. Default: the file's.")] = None,
    devices: Annotated[
        int, typer.Option("--devices", metavar="N", min=1, help="Devices of a training, which the configurations do not say.")
    ] = 1,
    nearest: Annotated[bool, typer.Option("--nearest", help="Use the nearest thing that works for what cannot be honoured.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the specs and the table of keys; write nothing.")] = False,
    every: Annotated[bool, typer.Option("--all", help="List every key of the tool, not only those that the files set.")] = False,
    explain: Annotated[
        bool, typer.Option("--explain", help="Compare what the tool and the spec learn of the rows; an existing spec is kept.")
    ] = False,
    rows: Annotated[int, typer.Option("--rows", "-n", metavar="N", min=0, help="With --explain: rows shown token by token.")] = 2,
    python: Annotated[
        str | None,
        typer.Option("--with-python", metavar="PATH", help="With --explain: a Python with the tool, whose own code labels."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite specs of the same name.")] = False,
    json: Json = False,
) -> None:
    """Turn configurations of axolotl, LLaMA-Factory and TRL into specs, and say what became of each key."""
    from engine.cli import render
    from engine.core.errors import UserError, did_you_mean
    from engine.core.workspace import Workspace
    from engine.importing.importing import CALLED, TOOLS, import_files

    if tool is not None and tool not in TOOLS:
        raise UserError(f"--from names no known tool: {tool}", hint=did_you_mean(tool, TOOLS))
    root = Workspace.at(Settings.workspace).root
    found = import_files(files, root, output, tool, devices, nearest, name)
    if explain:
        _explain(found, root, rows, python, json)
        return
    there = [path for path in found.files if (root / path).exists()]
    if there and not (force or dry_run):
        raise UserError(f"{there[0]} exists already", hint="give another --name or --output, or overwrite it: --force")
    if not dry_run:
        _write(found.files, root)
    if json:
        render.as_json({"files": dict(found.files) if dry_run else [*found.files], "imports": [one.as_data() for one in found.specs]})
        return
    for number, one in enumerate(found.specs):
        if number:
            render.lines([("", "")])
        entries = one.entries if every else one.told
        listed = [
            (
                entry.key,
                entry.given if entry.given is not None else "–",
                f"{entry.fate}{', differs' if entry.differs else ''}",
                _meaning(entry),
            )
            for entry in entries
        ]
        render.table(f"{one.name} ({CALLED[one.tool]}) → {one.spec}", ("key", "value", "", "in the spec, or why"), listed)
        render.warnings(one.warnings)
    if dry_run:
        for path, text in found.files.items():
            render.lines([(f"── {path}", ""), *((line, "") for line in text.splitlines()), ("", "")])
        render.note("nothing was written")
        return
    render.note(f"written: {', '.join(found.files)}")
    shown = " ".join(one.spec for one in found.specs)
    if any(one.unpinned for one in found.specs):
        render.note(f"next: engine pin {shown} (the commits that revisions of the hub name now), then engine plan {shown}")
    else:
        render.note(f"next: engine plan {shown}")


@app.command()
def adopt(
    spec: Annotated[Path, typer.Argument(metavar="SPEC", help="The spec with the model, the tasks and the evaluation of the adapter.")],
    adapter: Annotated[Path, typer.Option("--adapter", metavar="DIR", help="The adapter's folder, as peft saves it.")],
    name: Annotated[str | None, typer.Option("--name", metavar="NAME", help="Its name. Default: SPEC's and -adopted.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite a spec of the same name.")] = False,
    json: Json = False,
) -> None:
    """Take over an adapter that was trained elsewhere: it is copied, stated as not reproducible here, and becomes an experiment."""
    from engine.cli import render
    from engine.core.errors import UserError
    from engine.importing.adopting import adopt as adopted

    project = load_project()
    chosen, *_ = project.chosen([spec])
    found = adopted(chosen, adapter, name)
    if (project.root / found.spec).exists() and not force:
        raise UserError(f"{found.spec} exists already", hint="give another --name, or overwrite it: --force")
    found.write(project.root)
    try:
        load_project().select([found.spec])
    except UserError:
        (project.root / found.spec).unlink()  # a spec that does not fit would stop every command of the workspace
        raise
    if json:
        render.as_json({"experiment": found.name, "spec": found.spec, "adapter": found.folder, "digest": found.digest})
        return
    render.note(f"{found.digest}: {found.folder}, stated in {found.folder}.adopted.json; its experiment is {found.spec}")
    render.note(f"next: engine build {found.name}")


def _write(files: "Mapping[str, str]", root: Path) -> None:
    from engine.dvc.writing import replace_with

    for path, text in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        replace_with(root / path, text.encode())


def _explain(found: "Import", root: Path, rows: int, python: str | None, json: bool) -> None:
    """Compare each task of each spec; specs that are not there yet are written first."""
    from engine.cli import render, render_comparison
    from engine.rows.comparison import compare

    _write({path: text for path, text in found.files.items() if not (root / path).exists()}, root)
    project = load_project()
    answers = []
    for one in found.specs:
        spec, *_ = project.chosen([root / one.spec])
        for task, theirs in one.theirs.items():
            answers.append({"spec": one.spec, "tool": one.tool, **compare(project, spec, task, theirs, rows, python)})
            if not json:
                render_comparison.comparison(answers[-1])
    if json:
        render.as_json({"comparisons": answers})


def _meaning(entry: "Entry") -> str:
    return "; ".join(part for part in (", ".join(entry.ours), entry.why) if part)
