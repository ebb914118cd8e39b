"""Imports: configurations of other tools become specs, with an account of every key; writes nothing itself."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from engine.core.errors import Location, Problem, UserError
from engine.core.part import Part
from engine.importing import axolotl, documents, llamafactory, trl
from engine.importing.common import UNPINNED, Request
from engine.importing.documents import Document
from engine.importing.names import keep_apart
from engine.importing.reading import Draft, Entry, Setting, finished
from engine.importing.schemas import names, version
from engine.importing.writing import spec_text, unit_of
from engine.spec import tree
from engine.spec.notation import dotted
from engine.spec.positions import Key
from engine.spec.problems import validated
from engine.spec.sections import Experiment

TOOLS: Mapping[str, Callable[[Request], Draft]] = {tool.TOOL: tool.read for tool in (axolotl, llamafactory, trl)}
"""How a configuration of each tool is read."""
CALLED = {"axolotl": "axolotl", "llamafactory": "LLaMA-Factory", "trl": "TRL"}

_TELLING = {
    "axolotl": {"base_model", "micro_batch_size", "sequence_len", "datasets"},
    "llamafactory": {"stage", "finetuning_type", "cutoff_len", "template", "do_train", "dataset", "lora_target"},
    "trl": {
        "dataset_name",
        "use_peft",
        "precompute_ref_log_probs",
        "disable_dropout",
        "lora_target_modules",
        "completion_only_loss",
        "assistant_only_loss",
        "dataset_train_split",
    },
}
"""Keys that only one tool has, and that its configurations usually have."""


@dataclass(frozen=True)
class Imported:
    """One configuration and the spec that it becomes."""

    name: str
    """The configuration in messages."""
    tool: str
    spec: str
    """Path of the spec, relative to the workspace if inside."""
    text: str
    entries: tuple[Entry, ...]
    """What became of every key of the file and of the tool's schema, each once."""
    warnings: tuple[Problem, ...]
    experiment: Experiment
    unpinned: bool
    """Whether the spec names revisions of the hub that may move."""
    theirs: Mapping[str, Mapping[str, Any]]
    """For each task, what labels its rows as the tool does: `tool`, `config` and `dataset`."""

    @property
    def told(self) -> tuple[Entry, ...]:
        """The entries of the keys that the file sets, in its order, then those of unset keys whose default the spec has."""
        given = [entry for entry in self.entries if entry.given is not None]
        rest = [entry for entry in self.entries if entry.given is None and entry.fate == "taken over"]
        files = list(dict.fromkeys(entry.where.file for entry in given if entry.where))
        return tuple(sorted(given, key=lambda entry: (files.index(entry.where.file) if entry.where else 0, *_place(entry)))) + tuple(rest)

    def as_data(self) -> dict[str, Any]:
        """The import as one JSON value."""
        return {
            "file": self.name,
            "tool": self.tool,
            "spec": self.spec,
            "unpinned": self.unpinned,
            "keys": [entry.as_data() for entry in self.entries],
            "warnings": [{"what": w.what, "at": str(w.where) if w.where else None, "hint": w.hint} for w in self.warnings],
        }


def _place(entry: Entry) -> tuple[int, int]:
    return ((entry.where.line or 0, entry.where.column or 0)) if entry.where else (0, 0)


@dataclass(frozen=True)
class Import:
    """What `engine import` writes: specs and the parts that several of them share."""

    specs: tuple[Imported, ...]
    files: Mapping[str, str]
    """The text of every file, by its path relative to the workspace if inside."""


def import_files(
    paths: Sequence[Path],
    root: Path,
    output: Path,
    tool: str | None = None,
    devices: int = 1,
    nearest: bool = False,
    name: str | None = None,
) -> Import:
    """The specs of the configurations at PATHS; a dataset_info.json among them belongs to each.

    ROOT: the workspace; OUTPUT: the folder of the specs; TOOL: None to recognise it by its keys; DEVICES: on how many a configuration was
    run, which it does not say; NEAREST: whether the nearest thing that works replaces what cannot be honoured; NAME: the experiment's.
    Raises UserError with every problem of every file.
    """
    read = [documents.read(path, _shown(path, root)) for path in paths]
    tables = [one for one in read if llamafactory.looks_like(one.root)]
    configurations = [one for one in read if one not in tables]
    if not configurations:
        raise UserError("no configuration to import", Location(read[0].name), "give the configuration of a training, too")
    if name and len(configurations) > 1:
        raise UserError(
            "--name names one experiment, and there are several configurations", hint="leave it out: they are named after their files"
        )
    drafts = list[tuple[Document, Draft]]()
    problems = list[Problem]()
    for one in configurations:
        request = Request(root, (one, *tables), devices, nearest, name)
        try:
            drafts.append((one, finished(TOOLS[tool or recognised(one)](request))))
        except UserError as error:
            problems += error.problems
    if problems:
        raise UserError(dict.fromkeys(problems))
    keep_apart([draft for _, draft in drafts], [root / path for path in root.glob("specs/**/*.toml")])
    checked = [(one, *_without_defaults(draft, one, root)) for one, draft in drafts]
    return _written(checked, root, output)


def recognised(document: Document) -> str:
    """The tool that a configuration is for, by its keys; raises UserError if it is none of the known ones."""
    keys = set(document.root.content)
    if keys & {"compute_environment", "dist_config"} or {"model", "train_dataset"} <= keys:
        return "llamafactory"  # other files of the same user, which it names
    scores = {tool: 3 * len(keys & _TELLING[tool]) + len(keys & names(tool)) for tool in TOOLS}
    best = max(scores, key=lambda tool: scores[tool])
    if not keys or 2 * len(keys & names(best)) < len(keys):
        what = f"{document.name} is no configuration of {', '.join(CALLED.values())} that is recognised"
        raise UserError(what, Location(document.name, 1), f"say whose it is: --from {', '.join(TOOLS)}")
    return best


def _shown(path: Path, root: Path) -> str:
    full, base = path.resolve(), root.resolve()
    return full.relative_to(base).as_posix() if full.is_relative_to(base) else str(path)


def _without_defaults(draft: Draft, document: Document, root: Path) -> tuple[Draft, Experiment]:
    """DRAFT without the settings that equal the default of a spec, whose entries say so; and the experiment, checked as a spec is.

    Revisions that are not pinned yet are checked as if they were.
    """
    pinned = {
        path: replace(s, value="0" * 40) if path[-1] == "revision" and len(str(s.value)) != 40 else s for path, s in draft.settings.items()
    }
    name = "imported.toml"
    spec = tree.parse(spec_text(pinned, ()), name)
    try:
        experiment = validated(spec, (name,), Experiment)
    except UserError as error:
        places = {node.key.line: dotted(path) for path, node in spec.walk() if not isinstance(path[-1], int)}
        where = Location(document.name)
        found = [Problem(p.what, _origin(places.get(p.where.line if p.where else None), draft) or where, p.hint) for p in error.problems]
        raise UserError(found) from None
    kept, same = dict[Key, Setting](), set[str]()
    for path, setting in draft.settings.items():
        # A learning rate is always written: the default of a spec is made for LoRA.
        if path[-1] not in ("kind", "learning_rate") and _is_default(experiment, path) and not setting.remark:
            same.add(".".join(map(str, path)))
        else:
            kept[path] = setting
    for path in [p for p in kept if p[-1] == "kind"]:
        # A kind that is the default is not written if nothing else of its table is.
        alone = not any(other[: len(path) - 1] == path[:-1] for other in kept if other != path)
        if alone and _is_default_kind(experiment, path) and not kept[path].remark:
            same.add(".".join(map(str, path)))
            del kept[path]
    draft.settings = kept
    for name, entry in draft.entries.items():
        if entry.fate == "taken over" and entry.ours and all(ours in same for ours in entry.ours) and not entry.differs:
            draft.entries[name] = replace(entry, fate="same as the default")
    return draft, experiment


def _origin(path: str | None, draft: Draft) -> Location | None:
    """The place in the configuration of the key that the key PATH of the spec comes from; None if it is not set there."""
    return next((entry.where for entry in draft.entries.values() if entry.where and path in entry.ours), None)


def _is_default(experiment: Experiment, path: Key) -> bool:
    """Whether the value at PATH is what a spec without the key has."""
    value: Any = experiment
    for key in path[:-1]:
        value = getattr(value, str(key)) if isinstance(value, Part) else value[key] if isinstance(value, dict) and key in value else None
    name = str(path[-1])
    if not isinstance(value, Part) or name not in type(value).model_fields or type(value).model_fields[name].is_required():
        return False
    return bool(getattr(value, name) == type(value).model_fields[name].get_default(call_default_factory=True))


def _is_default_kind(experiment: Experiment, path: Key) -> bool:
    """Whether the member of a family at PATH is the default of its field."""
    return _is_default(experiment, path[:-1]) if len(path) > 1 else False


def _written(checked: Sequence[tuple[Document, Draft, Experiment]], root: Path, output: Path) -> Import:
    """The text of every spec, and of the parts that several share."""
    folder = output if output.is_absolute() else root / output
    shown = _shown(folder, root)
    shared = _shared([draft for _, draft, _ in checked])
    files: dict[str, str] = {}
    parts: dict[tuple[int, ...], str] = {}
    for group, settings in shared.items():
        units = list(dict.fromkeys(unit_of(path) for path in settings))
        label = "-".join(dict.fromkeys(str(unit[-1]) for unit in units))[:40].strip("-")
        name = next(n for n in (label, *(f"{label}-{i}" for i in range(2, 99))) if f"{shown}/parts/{n}.toml" not in files)
        parts[group] = f"parts/{name}.toml"
        header = [f"Shared by {', '.join(checked[number][2].experiment.name for number in group)}; imported by engine import."]
        files[f"{shown}/{parts[group]}"] = spec_text(settings, header)
    specs = []
    for number, (document, draft, experiment) in enumerate(checked):
        extends = [parts[group] for group in shared if number in group]
        taken = {path for group, settings in shared.items() if number in group for path in settings}
        own = {path: setting for path, setting in draft.settings.items() if path not in taken}
        unpinned = any(path[-1] == "revision" and len(str(setting.value)) != 40 for path, setting in draft.settings.items())
        path = f"{shown}/{experiment.experiment.name}.toml"
        if path in files:
            raise UserError(f"two configurations become {path}", Location(document.name), "import them one by one, with --name")
        text = spec_text(own, _header(document, draft, unpinned), extends)
        files[path] = text
        warnings = (*document.notes, *draft.warnings)
        entries = tuple(draft.entries.values())
        config = document.root.plain()
        theirs = {task: {"tool": draft.tool, "config": config, "dataset": entry} for task, entry in draft.datasets.items()}
        specs.append(Imported(document.name, draft.tool, path, text, entries, warnings, experiment, unpinned, theirs))
    return Import(tuple(specs), dict(sorted(files.items(), key=lambda item: "/parts/" not in item[0])))


def _header(document: Document, draft: Draft, unpinned: bool) -> list[str]:
    lines = [f"Imported from {document.name}, a configuration of {CALLED[draft.tool]} (known keys: version {version(draft.tool)})."]
    lines.append("Behind each value: the key that it comes from, or whose default it is. What is left out: engine import --dry-run")
    if unpinned:
        lines.append(f'Revisions such as "{UNPINNED}" may move: engine pin writes the commits that they name now.')
    return lines


def _shared(drafts: Sequence[Draft]) -> dict[tuple[int, ...], dict[Key, Setting]]:
    """Tables that are equal in several drafts, by the numbers of these drafts."""
    units: dict[tuple[Key, str], list[int]] = {}
    for number, draft in enumerate(drafts):
        for unit in dict.fromkeys(unit_of(path) for path in draft.settings):
            if unit != ("experiment",):
                values = {path: s.value for path, s in draft.settings.items() if path[: len(unit)] == unit}
                units.setdefault((unit, repr(sorted(values.items(), key=repr))), []).append(number)
    found: dict[tuple[int, ...], dict[Key, Setting]] = {}
    for (unit, _), numbers in units.items():
        if len(numbers) > 1:
            first = drafts[numbers[0]]
            table = {path: setting for path, setting in first.settings.items() if path[: len(unit)] == unit}
            found.setdefault(tuple(numbers), {}).update(table)
    return found
