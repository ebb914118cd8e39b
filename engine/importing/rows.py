"""Where the rows of a data set are: files here, or a data set on the hub, in the words of a spec."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from engine.importing.common import UNPINNED, Request, slug
from engine.importing.reading import Reading
from engine.spec.hub_names import HUB_ID
from engine.spec.positions import Key

_KINDS = {"json": "json", "jsonl": "jsonl", "ndjson": "jsonl", "csv": "csv", "tsv": "csv", "parquet": "parquet", "txt": "text"}
"""Kinds of sources by the ends of file names, before `.gz` and `.zst`."""
_BUILDERS = {"json": "json", "csv": "csv", "parquet": "parquet", "text": "text"}
"""Kinds by the names of the builders of `datasets`."""


def task_name(path: str, taken: Sequence[str]) -> str:
    """A name for the task of the rows at PATH that is not TAKEN yet."""
    base = slug(Path(path.rstrip("/")).name.split(".")[0])
    return next(name for name in (base, *(f"{base}-{n}" for n in range(2, 1000))) if name not in taken)


def put_rows(reading: Reading, request: Request, source: Key, keys: Mapping[str, str]) -> None:
    """The source at the path SOURCE of the spec; KEYS: what the tool calls `path`, `name`, `split`, `revision`, `files` and `type`."""
    given = str(reading.get(keys["path"]) or "")
    files = reading.names(keys["files"]) if "files" in keys else ()
    builder = reading.get(keys["type"]) if "type" in keys else None
    if given in _BUILDERS and files:
        builder, local = given, files
    elif (here := request.found(given) if given else None) is not None:
        local = _inside(here, files)
    elif re.search(r"\.(jsonl?|ndjson|csv|tsv|parquet|txt)(\.gz|\.zst)?$", given) or given.startswith(("/", "./", "../", "~")):
        local = files or (given,)
    else:
        local = ()
    if re.match(r"(s3|gs|gcs|abfs|adl|https?|oci)://", given):
        reading.refuse(keys["path"], f"rows at {given.split(':')[0]}://", "download the files; source.path takes files and patterns")
        _same_keys(reading, keys, "the rows are not read")
    elif local:
        _put_files(reading, request, source, keys, local, builder)
    else:
        _put_hub(reading, source, keys, given, files)


def first_row(request: Request, source: Mapping[str, object]) -> Mapping[str, object] | None:
    """The first row of the JSON or JSONL file of SOURCE, the settings of a source; None if it is not here."""
    path = source.get("path")
    found = request.found(str(path[0] if isinstance(path, tuple) else path)) if path else None
    if found is None or found.suffix not in (".json", ".jsonl"):
        return None
    with found.open(encoding="utf-8-sig") as file:
        try:
            data = json.loads(file.readline()) if source.get("kind") == "jsonl" else json.load(file)[0]
        except (ValueError, LookupError, TypeError):
            return None
    return data if isinstance(data, dict) else None


def _inside(here: Path, files: Sequence[str]) -> tuple[str, ...]:
    """The files that a path that is here stands for: itself, or those of a folder."""
    if here.is_file():
        return (str(here),)
    return tuple(str(here / name) for name in files) or tuple(
        str(path) for path in sorted(here.iterdir()) if path.is_file() and _kind(path.name) and path.name != "dataset_info.json"
    )


def _kind(name: str) -> str | None:
    parts = [part for part in Path(name).name.lower().split(".")[1:] if part not in ("gz", "zst")]
    return _KINDS.get(parts[-1]) if parts else None


def _put_files(reading: Reading, request: Request, source: Key, keys: Mapping[str, str], files: Sequence[str], builder: object) -> None:
    found = [request.found(file) for file in files]
    kinds = {_content(path) if path else _kind(file) or _BUILDERS.get(str(builder)) for file, path in zip(files, found, strict=True)}
    kind = next(iter(kinds)) if len(kinds) == 1 else None
    which = [keys["path"], *(keys[k] for k in ("files", "type") if k in keys)]
    if kind is None:
        what = f"files of the kind {builder}" if builder else f"files such as {Path(files[0]).name}"
        reading.refuse(keys["path"], what, "JSON, JSONL, CSV, Parquet and text files of one kind")
        _same_keys(reading, keys, "the rows are not read")
        return
    shown = tuple(
        request.shown(path or Path(file)) if path or Path(file).is_absolute() else file for file, path in zip(files, found, strict=True)
    )
    reading.put((*source, "kind"), kind, *which)
    reading.put((*source, "path"), shown[0] if len(shown) == 1 else shown, keys["path"])
    if kind == "csv" and all(file.split(".gz")[0].endswith(".tsv") for file in files):
        reading.draft.set((*source, "delimiter"), "\t", [keys["path"]])
    if kind == "text":
        reading.draft.set((*source, "split"), "line", [keys["path"]])
    split = str(reading.get(keys["split"], "train"))
    _put_part(reading, source, keys["split"], split)
    for name in ("name", "revision"):
        if name in keys:
            reading.none(keys[name], why="the rows are in files here")


def _content(path: Path) -> str | None:
    """The kind of the file at PATH; a `.json` file may hold one list, or one object per line."""
    kind = _kind(path.name)
    if kind == "json" and path.suffix == ".json":
        with path.open("rb") as file:
            return "json" if file.read(4096).lstrip(b"\xef\xbb\xbf \t\r\n")[:1] == b"[" else "jsonl"
    return kind


def _put_hub(reading: Reading, source: Key, keys: Mapping[str, str], given: str, files: Sequence[str]) -> None:
    reading.put((*source, "kind"), "hub", keys["path"])
    reading.put((*source, "id"), given, keys["path"])
    if not re.fullmatch(HUB_ID, given) and "$" not in given:
        reading.wrong(keys["path"], "a file or folder that is here, or the id of a data set on the hub")
    if files:
        reading.refuse(keys["files"], "some files of a data set on the hub", "download them; source.path takes files and patterns")
    elif "files" in keys:
        reading.same(keys["files"], why="all files of the split")
    if "type" in keys:
        reading.none(keys["type"], why="the hub says what the files are")
    if reading.given(keys["name"]):
        reading.put((*source, "config"), str(reading.get(keys["name"])), keys["name"])
    else:
        reading.same(keys["name"], why="the data set's own")
    revision = reading.get(keys["revision"]) if "revision" in keys else None
    pinned = isinstance(revision, str) and re.fullmatch(r"[0-9a-f]{40}", revision)
    why = "" if pinned else "a branch or tag may move; `engine pin` writes the commit that it names now"
    key = keys["revision"] if "revision" in keys else keys["path"]
    reading.put((*source, "revision"), str(revision or UNPINNED), key, why=why, differs=not pinned)
    _put_part(reading, source, keys["split"], str(reading.get(keys["split"], "train")), hub=True)


def _put_part(reading: Reading, source: Key, key: str, split: str, hub: bool = False) -> None:
    """The split, with the part of it that is used: `train[:1000]`, `train[:10%]`."""
    found = re.fullmatch(r"([\w.-]+)(?:\[:(\d+)(%?)\])?", split)
    if found is None:
        reading.refuse(key, f"the part of rows {split}", "a split, with source.limit, source.sample or source.where", nearest=True)
        if hub:
            reading.draft.set((*source, "split"), re.split(r"[\[+]", split)[0], [key])
        return
    name, number, percent = found.groups()
    if hub and name != "train":
        reading.put((*source, "split"), name, key)
    if number and percent and int(number) < 100:
        why = "the first rows there; rows chosen by their content here"
        reading.put((*source, "sample"), {"share": int(number) / 100}, key, why=why, differs=True)
    elif number and not percent:
        reading.put((*source, "limit"), int(number), key)
    if name == "train" or hub:
        reading.same(key, why="the split train")
    else:
        reading.none(key, why="files here have no splits")


def _same_keys(reading: Reading, keys: Mapping[str, str], why: str) -> None:
    for key in keys.values():
        reading.none(key, why=why)
