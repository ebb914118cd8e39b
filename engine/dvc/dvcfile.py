"""DVC's file formats (DVC 3.67): `dvc.yaml`, `params.yaml`, `dvc.lock` and cache keys; no other module knows them."""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from engine.core.errors import Location, UserError
from engine.core.gc_pause import without_collection
from engine.core.graph import HEADLINES, Graph, Step

HEADER = "# Written by `engine compile` from the specs; edit those, not this file.\n"
RESOLVE = "resolve"
RESOLVE_COMMAND = "python -P -m adapterbuild engine resolve"
RESOLVED = "artifacts/resolved"
RESOLVED_TEXT = "Written by `resolve`. Steps that read no other step depend on it, so that DVC resolves before it looks at them.\n"
IDENTITIES = "artifacts/identity"
RESOURCES = "artifacts/resources"
PARAMS = "params.yaml"
PIPELINE = "dvc.yaml"
LOCK = "dvc.lock"
CACHE = ".dvc/cache"
"""The default location of the cache (see engine.dvc.config)."""
TEMPORARY = ".dvc/tmp"
WRITTEN = f"{TEMPORARY}/adapterbuild/compiled"
"""The md5 of each compiled file as last written, to detect manual edits."""
FORMAT = 1
"""Incremented when the meaning of `packed` changes."""
OBJECT_MODE = 0o444
"""DVC trusts a read-only object without hashing it again."""


@dataclass(frozen=True)
class Entry:
    """The content of a path as DVC records it: the md5 of a file, or of a folder's listing with the suffix `.dir`."""

    md5: str
    executable: bool = False
    size: int = field(default=0, compare=False)
    """Total size in bytes; recorded, but not compared."""
    files: int | None = field(default=None, compare=False)
    """Number of files in a folder; None for a file."""

    @property
    def is_folder(self) -> bool:
        return self.md5.endswith(".dir")


@dataclass(frozen=True)
class Record:
    """A finished run: its command, and its dependencies and outputs by path."""

    command: str
    dependencies: Mapping[str, Entry]
    outputs: Mapping[str, Entry]


def command(step: Step) -> str:
    """The command that DVC runs for STEP; `-P` and the package name keep modules in the workspace from shadowing others."""
    return command_of(step.kind_name, step.name)


def command_of(kind: str, step: str) -> str:
    """The command that DVC runs for the step of this name and KIND."""
    return f"python -P -m adapterbuild stages {kind} {step}"


def commands(step: Step) -> tuple[str, ...]:
    """The command of STEP, and the equivalent commands of earlier releases, whose runs count as runs of this one."""
    return (command(step), f"python -m stages {step.kind_name} {step.name}")


def kind_of(command: str) -> str | None:
    """The kind that a command of this or an earlier release runs; None if it runs no step."""
    words = command.split()
    return words[-2] if len(words) > 3 and words[-3] == "stages" else None


def dependencies(step: Step) -> tuple[str, ...]:
    """Every dependency of STEP in `dvc.yaml`, sorted."""
    first = () if step.producers else (RESOLVED,)
    return tuple(sorted({step.identity, *(item.path for item in step.inputs.values()), *first}))


def waits_for_resolve(pipeline: str | bytes, step: str) -> bool:
    """Whether a PIPELINE, the text of `dvc.yaml`, lists what `resolve` writes among the dependencies of STEP."""
    return RESOLVED in parse_yaml(pipeline)["stages"][step]["deps"]


def resolved_entry() -> Entry:
    """The content of the file that makes DVC run `resolve` before all steps; constant, so that branches do not conflict in it."""
    return Entry(text_md5(RESOLVED_TEXT), size=len(RESOLVED_TEXT.encode()))


def pipeline_text(graph: Graph) -> str:
    """The text of `dvc.yaml`: wiring without values, so that editing a value does not change it."""
    return joined_pipeline({step.name: stage_text(step) for step in graph})


def joined_pipeline(stages: Mapping[str, str]) -> str:
    """The text of `dvc.yaml` with the texts of STAGES by name; sorted, so that a new spec moves no lines."""
    # The folder, not its files: DVC warns of a listed file that does not exist, and of most specs only some are built.
    head = HEADER + _dump({"params": [PARAMS], "metrics": [HEADLINES], "stages": {RESOLVE: _resolve_stage()}})
    return head + "".join(stages[name] for name in sorted(stages))


def stage_text(step: Step) -> str:
    """The part of `dvc.yaml` for STEP."""
    return _dump({"stages": _literal({step.name: _stage(step)})}).removeprefix("stages:\n")


def generated_text(content: Mapping[str, Any]) -> bytes:
    """The text of a compiled file with CONTENT."""
    return (HEADER + _dump(content)).encode()


def _literal(value: Any) -> Any:
    """VALUE escaped for `dvc.yaml`, where DVC interpolates `${name}` in all keys and strings."""
    if isinstance(value, str):
        return value.replace("${", "\\${")
    if isinstance(value, Mapping):
        return {_literal(key): _literal(item) for key, item in value.items()}
    return [_literal(item) for item in value] if isinstance(value, list | tuple) else value


def _resolve_stage() -> dict[str, Any]:
    return {
        "desc": "Identities of all steps and params.yaml, from specs, code and lock.",
        "cmd": RESOLVE_COMMAND,
        # Its dependencies and other outputs are not listed: DVC would record one digest of all specs, all code and all identities, in
        # which any two branches conflict. It runs in every `dvc repro`; each step depends on its own identity file.
        "outs": [RESOLVED],
        "always_changed": True,
    }


def _stage(step: Step) -> dict[str, Any]:
    stage: dict[str, Any] = {
        "desc": step.description,
        "cmd": command(step),
        "deps": list(dependencies(step)),
        # A plain output, since DVC shows every number of every file under `metrics`; so runs are saved by `Recorder.keep_run`.
        "outs": [step.artifact, step.provenance, {step.metrics: {"cache": False}}],
    }
    if step.plots:
        stage["plots"] = [{step.plots: {"cache": False, **step.kind.plot, "title": step.name}}]
    return stage


def changed_sections(old: str, new: str) -> set[str]:
    """The steps whose section differs between two texts of `dvc.yaml`, or two of `params.yaml`."""

    def sections(text: str) -> dict[str, Any]:
        try:
            content = parse_yaml(text) or {}
        except ValueError:
            return {}
        return dict(content.get("stages", content)) if isinstance(content, dict) else {}

    before, now = sections(old), sections(new)
    return {name for name in {**before, **now} if before.get(name) != now.get(name)}


def params_text(graph: Graph) -> str:
    """The text of `params.yaml`: recipe and resources of every step, for readers, `dvc params diff` and `dvc exp show`."""
    return joined_params({step.name: parameters_text(step) for step in graph})


def joined_params(parameters: Mapping[str, str]) -> str:
    """The text of `params.yaml` with the texts of the PARAMETERS of steps, by name."""
    return HEADER + ("".join(parameters[name] for name in sorted(parameters)) or _dump({}))


def parameters_text(step: Step) -> str:
    """The part of `params.yaml` for STEP."""
    return _dump({step.name: _params(step)})


def _params(step: Step) -> dict[str, Any]:
    from engine.identity.text import recipe_of, resources_of

    resources = {name: value for name, value in resources_of(step.parameters).items() if value is not None}
    if step.numerics != "portable":
        resources["numerics"] = step.numerics
    return recipe_of(step.parameters) | ({"resources": resources} if resources else {})


def _dump(value: Any) -> str:
    import yaml  # not needed for a plan that finds the content of `dvc.lock` cached

    text: str = yaml.dump(value, Dumper=_dumper(), sort_keys=False, allow_unicode=True, width=1000, default_flow_style=False)
    return text


@cache
def _dumper() -> Any:
    """PyYAML's safe dumper without anchors: repeated values are written out."""
    import yaml

    class Dumper(yaml.CSafeDumper):
        def ignore_aliases(self, data: Any) -> bool:
            return True

    return Dumper


def parse_yaml(text: str | bytes) -> Any:
    """The value of a YAML text; raises ValueError if it is not valid YAML."""
    import yaml

    try:
        return yaml.load(text, Loader=yaml.CSafeLoader)
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from None


def parse_stages(text: str | bytes) -> dict[str, Any]:
    """The content of a `dvc.yaml` or `dvc.lock`, its `stages` a mapping, if it has any; raises ValueError if it is invalid."""
    content = parse_yaml(text) or {}
    if not isinstance(content, dict):
        raise ValueError(f"it holds {_named(content)}, not a mapping")
    stages = content.get("stages")
    if stages is not None and not isinstance(stages, dict):
        raise ValueError(f"its `stages` are {_named(stages)}, not a mapping")
    return content | {"stages": stages or {}} if "stages" in content else content


def _named(value: Any) -> str:
    return "a list" if isinstance(value, list) else "text" if isinstance(value, str) else "a number"


@without_collection
def parse_lock(text: str | bytes) -> dict[str, Record]:
    """The records of a `dvc.lock`, by step; raises ValueError if it is invalid."""
    content = parse_stages(text)
    try:
        return lock_records(content.get("stages", {}))
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(str(error)) from None


RESTORE_LOCK = f"restore it: git checkout HEAD -- {LOCK}"


def unreadable(error: ValueError) -> UserError:
    """What a `dvc.lock` that cannot be read, because of ERROR, is for the user."""
    return UserError(f"cannot read {LOCK}: {error}", Location(LOCK), RESTORE_LOCK)


def lock_records(stages: Mapping[str, Any]) -> dict[str, Record]:
    """The records in the stages of a `dvc.lock`, by step; raises KeyError, TypeError or AttributeError if they are invalid."""
    return {name: _record(stage) for name, stage in stages.items() if not is_place(stage)}


def parse_record(text: str | bytes) -> Record:
    """One entry of the run cache; raises ValueError if it is invalid, such as a partial entry of a killed DVC process."""
    content = parse_yaml(text)
    try:
        return _record(content)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(str(error)) from None


def _record(stage: Mapping[str, Any]) -> Record:
    def entries(key: str) -> dict[str, Entry]:
        found = {
            item["path"]: Entry(item["md5"], item.get("isexec", False), item.get("size", 0), item.get("nfiles"))
            for item in stage.get(key) or ()
            if "md5" in item
        }
        if wrong := [entry.md5 for entry in found.values() if not is_object(entry.md5)]:
            raise ValueError(f"not an md5: {wrong[0]!r}")
        return found

    return Record(stage["cmd"], entries("deps"), entries("outs"))


def packed(record: Record) -> list[Any]:
    """A record as a compact JSON value; the inverse is `unpacked`."""

    def entries(found: Mapping[str, Entry]) -> dict[str, list[Any]]:
        return {path: [entry.md5, entry.executable, entry.size, entry.files] for path, entry in found.items()}

    return [record.command, entries(record.dependencies), entries(record.outputs)]


def unpacked(value: Sequence[Any]) -> Record:
    """The record that `packed` turned into VALUE."""
    command, dependencies, outputs = value
    return Record(
        command,
        {path: Entry(*entry) for path, entry in dependencies.items()},
        {path: Entry(*entry) for path, entry in outputs.items()},
    )


def is_place(stage: Any) -> bool:
    """Whether an entry of `dvc.lock` is a placeholder for a step that has not run (see `LockText.reserve`)."""
    return isinstance(stage, Mapping) and list(stage) == ["cmd"]


def lock_stage(record: Record) -> dict[str, Any]:
    """A run as stored in `dvc.lock` and in the run cache."""

    def items(entries: Mapping[str, Entry]) -> list[dict[str, Any]]:
        return [_item(path, entry) for path, entry in sorted(entries.items())]

    lists = {"deps": items(record.dependencies), "outs": items(record.outputs)}
    return {"cmd": record.command} | {key: found for key, found in lists.items() if found}


def _item(path: str, entry: Entry) -> dict[str, Any]:
    item: dict[str, Any] = {"path": path, "hash": "md5", "md5": entry.md5, "size": entry.size}
    if entry.files is not None:
        item["nfiles"] = entry.files
    return item | ({"isexec": True} if entry.executable else {})


_STAGE = re.compile(rb"^  ([^\s:]+):\n    cmd: .*\n(    \w)?", re.MULTILINE)


def is_tidy(lock: bytes) -> bool:
    """Whether the stages of a `dvc.lock` are sorted and free of placeholders; determined without parsing it."""
    found = _STAGE.findall(lock)
    names = [name for name, _ in found]
    return names == sorted(names) and all(rest for _, rest in found)


class LockText:
    """The text of a `dvc.lock` in one piece per step, so that updating one step does not serialize thousands of others."""

    def __init__(self, text: str | bytes | None) -> None:
        """TEXT: that of the file; None if there is none yet. Raises ValueError if it is invalid."""
        content = (parse_stages(text) if text else None) or {"schema": "2.0"}
        stages = content.pop("stages", {})
        self.head = _dump(content).encode()
        self.put(stages)

    def put(self, stages: Mapping[str, Any]) -> None:
        """Replace all stages by STAGES, as parsed from YAML; placeholders are dropped."""
        self.stages = {name: self._piece(name, stage) for name, stage in stages.items() if not is_place(stage)}

    @staticmethod
    def _piece(name: str, stage: Mapping[str, Any]) -> bytes:
        return _dump({"stages": {name: stage}}).partition("\n")[2].encode()

    def update(self, records: Mapping[str, Record]) -> None:
        """Add or replace RECORDS; entries of other steps do not change."""
        self.stages |= {name: self._piece(name, lock_stage(record)) for name, record in records.items()}

    def reserve(self, commands: Mapping[str, str]) -> None:
        """Add a placeholder for each step without a record: DVC appends new entries at the end, but updates existing ones in place."""
        self.stages |= {name: self._piece(name, {"cmd": command}) for name, command in commands.items() if name not in self.stages}

    def text(self) -> bytes:
        """The whole file, with steps sorted by name, so that it does not depend on the order in which they ran."""
        pieces = [self.stages[name] for name in sorted(self.stages)]
        return b"".join([self.head, b"stages:\n" if self.stages else b"stages: {}\n", *pieces])


def run_text(record: Record, params: Mapping[str, Mapping[str, Any]] | None = None) -> str:
    """The text of a run-cache entry."""
    return _dump(lock_stage(record) | ({"params": params} if params else {}))


def run_value(record: Record) -> str:
    """File name of a run in the folder of its key: a digest of the whole run except sizes."""
    stage = lock_stage(record)
    for item in (*stage["deps"], *stage["outs"]):
        item.pop("size")
        item.pop("nfiles", None)
    return hashlib.sha256(json.dumps(stage, sort_keys=True).encode()).hexdigest()


_MD5 = re.compile(rb"[0-9a-f]{32}")


def md5s_in(text: bytes) -> set[str]:
    """Everything in a DVC file that looks like an md5: a cheap filter for files worth parsing."""
    return {md5.decode() for md5 in _MD5.findall(text)}


def run_key(step_command: str, deps: Mapping[str, Entry], outputs: Iterable[str]) -> str:
    """The run cache's key of a stage without params, as `dvc.stage.cache._get_stage_hash` computes it."""
    content = {
        "cmd": step_command,
        "deps": [_dependency(path, entry) for path, entry in sorted(deps.items())],
        "outs": sorted(outputs),
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _dependency(path: str, entry: Entry) -> dict[str, Any]:
    return {"path": path, "hash": "md5", "md5": entry.md5} | ({"isexec": True} if entry.executable else {})


def run_folder(key: str) -> str:
    """Path of the run cache's folder for a key, relative to the cache."""
    return f"runs/{key[:2]}/{key}"


def run_path(record: Record) -> str:
    """Path of the run cache's entry for a run, relative to the cache: digests of its command, inputs and outputs."""
    return f"{run_folder(run_key(record.command, record.dependencies, record.outputs))}/{run_value(record)}"


def object_path(md5: str) -> str:
    """Path of an object, relative to the cache."""
    return f"files/md5/{md5[:2]}/{md5[2:]}"


def tree_bytes(files: Mapping[str, str]) -> bytes:
    """DVC's listing (`.dir` object) of a folder, from the md5 of every file by its path inside the folder."""
    return json.dumps([{"md5": files[path], "relpath": path} for path in sorted(files)], sort_keys=True).encode()


def text_md5(text: str) -> str:
    """The md5 of a file with the content TEXT."""
    return bytes_md5(text.encode())


def bytes_md5(data: bytes) -> str:
    """The md5 of a file with the content DATA."""
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


def text_sha256(text: str) -> str:
    """The sha256 (hex) of a file with the content TEXT."""
    return hashlib.sha256(text.encode()).hexdigest()


def tree_md5(files: Mapping[str, str]) -> str:
    """The md5 of a folder with these FILES: that of its listing, with the suffix `.dir`."""
    return hashlib.md5(tree_bytes(files), usedforsecurity=False).hexdigest() + ".dir"


def parse_tree(data: bytes) -> dict[str, str]:
    """The files in a folder's listing, as path inside the folder to md5; raises ValueError for others, and for paths that leave it."""
    try:
        found = {item["relpath"]: item["md5"] for item in json.loads(data)}
        # Whoever can write to a remote can write listings.
        wrong = [path for path, md5 in found.items() if not is_inside(path) or not is_object(md5)]
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"not the listing of a folder: {error!r}") from None
    if wrong:
        raise ValueError(f"not a file of a folder: {wrong[0]!r} with the content {found[wrong[0]]!r}")
    return found


_INSIDE = re.compile(r"(?:(?!\.\.?(?:/|\Z))[^/\0]+/)*(?!\.\.?\Z)[^/\0]+")
_OBJECT = re.compile(r"[0-9a-f]{32}(?:\.dir)?")


def is_inside(path: str) -> bool:
    """Whether a relative path in DVC's form (`/` between names) names something below the folder that it is relative to."""
    return _INSIDE.fullmatch(path) is not None


def is_object(md5: str) -> bool:
    """Whether MD5 can be the name of an object: that of a file, or with `.dir` that of a listing."""
    return _OBJECT.fullmatch(md5) is not None


def inside_tree(files: Mapping[str, str], path: str) -> str | None:
    """The md5 of PATH, a file or folder inside a listed folder; None if it does not exist."""
    if path in files:
        return files[path]
    below = {name.removeprefix(f"{path}/"): md5 for name, md5 in files.items() if name.startswith(f"{path}/")}
    return tree_md5(below) if below else None
