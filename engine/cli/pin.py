"""The command that replaces branches and tags with commits: pin."""

from pathlib import Path
from typing import Annotated

import typer

from engine.cli.app import Json, Settings, app


@app.command()
def pin(
    specs: Annotated[
        list[Path] | None, typer.Argument(metavar="SPEC", help="Specs, with the parts that they extend. Default: all.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be written.")] = False,
    json: Json = False,
) -> None:
    """Replace hub branches and tags in specs with the commits that they name now, in place; comments are kept."""
    from engine.cli import render
    from engine.compile.hub import commit_of
    from engine.core.workspace import Workspace, select
    from engine.dvc.writing import replace_with
    from engine.spec.pinning import files_of, moving_in, resolved
    from engine.spec.pinning import pin as pinned

    workspace = Workspace.at(Settings.workspace)
    files = files_of([*(select(specs, workspace) if specs else workspace.spec_paths())])
    found = tuple(one for file in files for one in moving_in(file, workspace.display(file)))
    commits = resolved(found, commit_of)
    # Resolve everything before writing anything.
    texts = {
        file: pinned(file, {one.key: commit for one, commit in commits.items() if one.file == file})
        for file in dict.fromkeys(one.file for one in found)
    }
    if not dry_run:
        for file, text in texts.items():
            replace_with(file, text.encode())
    if json:
        pairs = [
            {"file": one.where.file, "line": one.where.line, "id": one.id, "from": one.revision, "to": commit}
            for one, commit in commits.items()
        ]
        render.as_json({"pinned": pairs})
        return
    for one, commit in commits.items():
        render.note(f"{one.where.file}:{one.where.line}  {one.id}  {one.revision} → {commit}")
    render.note(f"{len(commits)} pinned" if commits and not dry_run else "nothing was written" if dry_run else "every revision is a commit")
