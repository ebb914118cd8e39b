"""Files that steps read and that are not there: what may be meant, and which page tells where they come from."""

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
from stages.generate.sources.files import Files

_PAGE = "README.md"
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*")
"""An owner or a name of the Hugging Face hub."""


def missing_inputs(steps: Sequence[Step], root: Path) -> list[Problem]:
    """A problem for each path that STEPS read and that no step makes: where it is not there, or lacks files that DVC tracks inside of it.

    And for each pattern that matches nothing, or would match such files.
    """
    return [*_missing_paths(steps, root), *_patterns_of_nothing(steps, root), *_not_pulled(steps, root)]


def _not_pulled(steps: Iterable[Step], root: Path) -> Iterator[Problem]:
    """Models and patterns with `.dvc` files whose own files are not here: a part of the data would be taken for all of it."""
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
                yield Problem(f"{found} is not here, and {pattern or item.path} needs it", item.where, pulled_by(root, str(found)))


def _patterns_of_nothing(steps: Iterable[Step], root: Path) -> Iterator[Problem]:
    for step in steps:
        for place, part in step.parameters.placed() if isinstance(step.parameters, generate.Parameters) else ():
            for field, pattern in part.unmatched(root) if isinstance(part, Files) else ():
                hint = pulled_by(root, pattern) or "is the pattern right? paths are relative to the workspace"
                yield Problem(f"no file matches {pattern}", step.locate((*place, *field)), hint)


def _missing_paths(steps: Iterable[Step], root: Path) -> list[Problem]:
    absent = {
        (item, role in ("model", "teacher")): None
        for step in steps
        for role, item in step.inputs.items()
        if item.producer is None and not (root / item.path).exists()
    }
    paths = {str(PurePosixPath(item.path)) for item, _ in absent}
    return [
        Problem(f"there is no {item.path}", item.where, _hint(root, item, is_model))
        for item, is_model in absent
        # The files of a folder that is not here are said with it.
        if not any(str(above) in paths for above in PurePosixPath(item.path).parents)
    ]


def pulled_by(root: Path, path: str) -> str | None:
    """How to get PATH, a file, folder or pattern, where it or a folder above it is tracked by a `.dvc` file; None where neither is."""
    for above in (PurePosixPath(path), *PurePosixPath(path).parents):
        if above.name and (root / f"{above}.dvc").is_file():
            target = quote(f"{above}.dvc")
            return f"DVC tracks it, and it is not here; run: dvc checkout {target}, or dvc pull {target} where the cache lacks it"
    return None


def _hint(root: Path, item: Input, is_model: bool) -> str:
    if pulled := pulled_by(root, item.path):
        return pulled
    folder = (root / item.path).parent
    near = get_close_matches(PurePosixPath(item.path).name, _names(folder), n=1) if folder.is_dir() else []
    page = _page(root, item)
    if is_model and not near and _looks_like_hub_id(root, item.path):
        instead = f'id = "{item.path}" and revision, the full commit hash (40 hex digits), in place of path'
        return f"'{item.path}' looks like a hub id; for a model of the Hugging Face hub write {instead}"
    said = [
        *(f"did you mean '{PurePosixPath(item.path).with_name(name)}'?" for name in near),
        *([f"{page} tells of it;"] if page and not near else []),
        "paths are relative to the workspace",
    ]
    return " ".join(said)


def _looks_like_hub_id(root: Path, path: str) -> bool:
    """Whether the path of a model that is not here is an owner and a name, and nothing in the workspace has the owner's name."""
    owner, _, name = path.partition("/")
    return bool(_HUB_NAME.fullmatch(owner) and _HUB_NAME.fullmatch(name)) and not (root / owner).exists()


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def _page(root: Path, item: Input) -> str | None:
    """The nearest page beside or above the spec that names the missing file or the folder that it should lie in, seen from ROOT."""
    parts = PurePosixPath(item.path).parts
    named = (parts[-1], f"{parts[0]}/")
    pages = (folder / _PAGE for folder in _upwards(root, item))
    return next((relpath(page, root) for page in pages if page.is_file() and _names_any(page, named)), None)


def _names_any(page: Path, named: Iterable[str]) -> bool:
    text = page.read_text("utf-8", "replace")
    return any(name in text for name in named)


def _upwards(root: Path, item: Input) -> Iterator[Path]:
    """The folders from that of the spec up to the top of the repository, which may hold the workspace."""
    top = next((folder for folder in (root, *root.parents) if (folder / ".git").exists()), root)
    start = (root / item.where.file).parent if item.where else root
    return (folder for folder in (start, *start.parents) if folder.is_relative_to(top))
