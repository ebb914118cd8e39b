"""Adapters that were trained elsewhere become experiments of a workspace, with a statement that says so."""

import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.core.digests import file_digests, listing_digest
from engine.core.errors import UserError
from engine.identity.provenance import STATEMENT
from engine.importing.reading import Setting
from engine.importing.writing import spec_text
from engine.spec.models import GgufModel, HubModel, LocalModel
from engine.spec.positions import Key
from engine.spec.tree import Node
from stages.models.folders import ADAPTER_CONFIG, ADAPTER_WEIGHTS, read_adapter_config, require_adapter_weights

if TYPE_CHECKING:
    from engine.spec.sections import Spec

PREDICATE = "https://github.com/adapterbuild/adapterbuild/adopted/v1"
_FILES = (ADAPTER_CONFIG, ADAPTER_WEIGHTS)
_KEPT = ("tasks", "tokenization", "evaluation", "benchmarks", "resources")
"""Sections of the spec that the experiment takes over; it trains nothing."""


@dataclass(frozen=True)
class Adopted:
    """An adapter that was trained elsewhere, as an experiment."""

    name: str
    source: Path
    """The folder that the adapter is copied from."""
    files: Mapping[str, str]
    """The sha256 (hex) of each file, by name."""
    folder: str
    """The folder of the copy, relative to the workspace."""
    statement: str
    text: str
    """The spec of the experiment."""

    @property
    def digest(self) -> str:
        """The content address of the adapter."""
        return listing_digest(self.files)

    @property
    def spec(self) -> str:
        return f"specs/{self.name}.toml"

    def write(self, root: Path) -> None:
        """Copy the adapter, and write its statement and the spec; files that are there are replaced."""
        folder = root / self.folder
        folder.mkdir(parents=True, exist_ok=True)
        for name in self.files:
            shutil.copyfile(self.source / name, folder / name)
        (root / f"{self.folder}.adopted.json").write_text(self.statement, "utf-8")
        (root / self.spec).parent.mkdir(exist_ok=True)
        (root / self.spec).write_text(self.text, "utf-8")


def adopt(spec: "Spec", source: Path, name: str | None = None) -> Adopted:
    """The adapter in the folder SOURCE as the experiment NAME, on the model and with the tasks and the evaluation of SPEC; writes nothing.

    Raises UserError if the folder has no adapter in safetensors, or if the model of SPEC is not one that an adapter can be put on.
    """
    if not source.is_dir():
        raise UserError(f"folder not found: {source}", hint="name the folder with adapter_config.json")
    config = read_adapter_config(source)
    require_adapter_weights(source)
    model = spec.experiment.model
    if not isinstance(model, LocalModel | HubModel | GgufModel) or model.adapter is not None:
        what = f"the model of {spec.path} is not one that an adapter from elsewhere can be put on"
        raise UserError(what, spec.where("model"), "a spec with path, id or gguf in [model], and without adapter")
    own = name or f"{spec.stem}-adopted"
    files = {file: digest for file, digest in file_digests(source).items() if file in _FILES}
    folder = f"adapters/{own}"
    return Adopted(own, source, files, folder, _statement(own, files, config, spec), _text(own, folder, listing_digest(files), spec))


def _statement(name: str, files: Mapping[str, str], config: Mapping[str, Any], spec: "Spec") -> str:
    """An in-toto statement: the files, and that no step of this workspace made them."""
    subjects = [{"name": f"adapters/{name}", "digest": {"sha256": listing_digest(files).removeprefix("sha256:")}}]
    subjects += [{"name": f"adapters/{name}/{file}", "digest": {"sha256": digest}} for file, digest in sorted(files.items())]
    base = {"named": config.get("base_model_name_or_path"), "revision": config.get("revision")}
    predicate = {"trainedElsewhere": True, "reproducible": False, "method": config.get("peft_type"), "base": base, "spec": spec.path}
    statement = {"_type": STATEMENT, "subject": subjects, "predicateType": PREDICATE, "predicate": predicate}
    return json.dumps(statement, indent=1, ensure_ascii=False) + "\n"


def _text(name: str, folder: str, digest: str, spec: "Spec") -> str:
    settings: dict[Key, Setting] = {("experiment", "name"): Setting(name)}
    for path, node in _values(spec.document, ()):
        if path[0] == "model" or path[0] in _KEPT:
            settings[path] = Setting(node.plain(), (f"{node.value.file}:{node.value.line}",))
    settings[("model", "adapter")] = Setting(folder, ("trained elsewhere",))
    mixture = spec.experiment.mixture
    if mixture and ("evaluation", "tasks") not in settings:
        settings[("evaluation", "tasks")] = Setting(mixture.tasks, ("the tasks of its mixture",))
    header = [
        f"An adapter that was trained elsewhere, adopted for the experiment {spec.stem}; {digest}",
        f"It cannot be rebuilt here: {folder}.adopted.json says what it is. It is evaluated, compared and merged as it is;",
        "to go on from it, add [mixture] and [training] with its method.",
    ]
    return spec_text(settings, header)


def _values(node: Node, path: Key) -> Iterator[tuple[Key, Node]]:
    """The values of a document, arrays whole, and tables of a family whole, so that a kind stays with its keys."""
    for key, child in node.content.items():
        here = (*path, key)
        if isinstance(child.content, dict) and len(here) < 3 and here != ("model", "adapter"):
            yield from _values(child, here)
        else:
            yield here, child
