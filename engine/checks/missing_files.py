"""Checks for missing input files, with hints: similar names, files to pull with DVC, and the README that describes the data."""

import re
from collections.abc import Iterable, Iterator, Sequence
from difflib import get_close_matches
from fnmatch import fnmatch
from os.path import relpath
from pathlib import Path, PurePosixPath
from shlex import quote

from engine.core.errors import Problem
from engine.core.graph import Input, Step
from stages import generate
from stages.generate.selection import Files

_PAGE = "README.md"
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*")
"""An owner or a repository name on the Hugging Face hub."""
_HUB_ADDRESS = re.compile(r"(?:(?:https?:/+)?(?:www\.)?(?:huggingface\.co|hf\.co)/+|hf:/+)([\w.-]+/[\w.-]+)(?:[/@?#].*)?", re.IGNORECASE)
"""The address of a repository there; a path in a step's inputs has single slashes."""
_SORTS = {"model": "model", "teacher": "model", "adapter": "adapter", "tasks": "folder"}
"""What an input is, by its role (of `adapter/<name>`, the first part); a file if it is not listed."""
_FROM_HUB = {
    "model": 'a model on the Hugging Face hub, set id = "{}" and revision, the full commit hash (40 hex digits), instead of path',
    "adapter": 'an adapter on the Hugging Face hub, set adapter.id = "{}" and adapter.revision, the full commit hash (40 hex digits)',
}


def missing_inputs(steps: Sequence[Step], root: Path) -> list[Problem]:
    """A problem for each source file or folder of STEPS that is missing or lacks files tracked by DVC, and for each unmatched pattern."""
    return [*_missing_paths(steps, root), *_unmatched_patterns(steps, root), *_not_pulled(steps, root)]


def _not_pulled(steps: Iterable[Step], root: Path) -> Iterator[Problem]:
    """A problem for each `.dvc` file in an input whose tracked file is missing: the step would read incomplete data."""
    for step in steps:
        patterns: dict[str | None, str] = {}
        for _, part in step.parameters.placed() if isinstance(step.parameters, generate.Parameters) else ():
            if isinstance(part, Files):
                patterns |= {need.path: path for need, path in zip(part.needs(), part.paths, strict=True)}
        for item in step.inputs.values():
            folder = root / item.path
            if item.producer is not None or not folder.is_dir():
                continue
            pattern = patterns.get(item.path)
            for pointer in sorted(folder.rglob("*.dvc")):
                target = pointer.with_suffix("")
                if target.exists() or (pattern and not fnmatch(target.name, PurePosixPath(pattern).name)):
                    continue
                found = target.relative_to(root) if target.is_relative_to(root) else target
                what = f"file not found: {found}, which belongs to {pattern or item.path}"
                yield Problem(what, item.where, pulled_by(root, str(found)))


def _unmatched_patterns(steps: Iterable[Step], root: Path) -> Iterator[Problem]:
    for step in steps:
        for place, part in step.parameters.placed() if isinstance(step.parameters, generate.Parameters) else ():
            for field, pattern in part.unmatched(root) if isinstance(part, Files) else ():
                hint = pulled_by(root, pattern) or "check the pattern; paths are relative to the workspace"
                yield Problem(f"no file matches {pattern}", step.locate((*place, *field)), hint)


def _missing_paths(steps: Iterable[Step], root: Path) -> list[Problem]:
    absent = dict.fromkeys(
        (item, _SORTS.get("adapter" if role.startswith("adapter/") else role, "file"))
        for step in steps
        for role, item in step.inputs.items()
        if item.producer is None and not (root / item.path).exists()
    )
    paths = {str(PurePosixPath(item.path)) for item, _ in absent}
    return [
        Problem(f"{'file' if sort == 'file' else 'folder'} not found: {item.path}", item.where, _hint(root, item, sort))
        for item, sort in absent
        # Files of a missing folder are reported with the folder.
        if not any(str(above) in paths for above in PurePosixPath(item.path).parents)
    ]


def pulled_by(root: Path, path: str) -> str | None:
    """A hint on how to get PATH (a file, folder or pattern) if a `.dvc` file tracks it or a folder above it; else None."""
    for above in (PurePosixPath(path), *PurePosixPath(path).parents):
        if above.name and (root / f"{above}.dvc").is_file():
            target = quote(f"{above}.dvc")
            return f"DVC tracks it; run: dvc checkout {target}, or dvc pull {target} if it is not in the cache"
    return None


def _hint(root: Path, item: Input, sort: str) -> str:
    if pulled := pulled_by(root, item.path):
        return pulled
    folder = (root / item.path).parent
    names = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    near = get_close_matches(PurePosixPath(item.path).name, names, n=1)
    page = _page(root, item)
    if sort in _FROM_HUB and not near and (name := _hub_id(root, item.path)):
        return (
            f"'{item.path}' looks like {'a hub id' if name == item.path else 'an address of the hub'}; for {_FROM_HUB[sort].format(name)}"
        )
    parts = [
        *(f"did you mean '{PurePosixPath(item.path).with_name(name)}'?" for name in near),
        *([f"see {page};"] if page and not near else []),
        "paths are relative to the workspace",
    ]
    return " ".join(parts)


def _hub_id(root: Path, path: str) -> str | None:
    """The hub id in the PATH of a missing model: an address of the hub, or owner/name if the workspace has no such owner's folder."""
    if address := _HUB_ADDRESS.fullmatch(path):
        return address[1]
    owner, _, name = path.partition("/")
    return path if _HUB_NAME.fullmatch(owner) and _HUB_NAME.fullmatch(name) and not (root / owner).exists() else None


def _page(root: Path, item: Input) -> str | None:
    """The nearest README.md in or above the spec's folder that mentions the missing file or its top folder, relative to ROOT."""
    parts = PurePosixPath(item.path).parts
    named = (parts[-1], f"{parts[0]}/")
    pages = (folder / _PAGE for folder in _upwards(root, item))
    return next((relpath(page, root) for page in pages if page.is_file() and _names_any(page, named)), None)


def _names_any(page: Path, named: Iterable[str]) -> bool:
    text = page.read_text("utf-8", "replace")
    return any(name in text for name in named)


def _upwards(root: Path, item: Input) -> Iterator[Path]:
    """The folders from that of the spec up to the top of the git repository, which may be above the workspace."""
    top = next((folder for folder in (root, *root.parents) if (folder / ".git").exists()), root)
    start = (root / item.where.file).parent if item.where else root
    return (folder for folder in (start, *start.parents) if folder.is_relative_to(top))
