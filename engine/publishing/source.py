"""What is published: the folder that a step made, completed so that it loads without other files, and its origin."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from engine.artifacts.addresses import of_steps, only
from engine.artifacts.bases import base_of
from engine.artifacts.fetch import fetch
from engine.artifacts.loading import Choice
from engine.artifacts.prompts import prompts
from engine.core.digests import folder_digest, short
from engine.core.errors import UserError, did_you_mean
from engine.core.graph import Step
from engine.dvc.remote import Remote
from engine.dvc.run_records import RunRecord
from engine.identity.provenance import Provenance, parse
from stages.models.folders import ADAPTER_CONFIG, json_object

if TYPE_CHECKING:
    from engine.plan.project import Project
    from engine.spec.sections import Spec


@dataclass(frozen=True)
class Source:
    """The result of a step, in a folder of its own."""

    name: str
    """Of the experiment, or of the step where it belongs to none."""
    step: Step
    folder: Path
    """Its files, with what they need to be loaded, and the card."""
    told: Provenance
    statement: bytes
    ran: RunRecord | None
    spec: "Spec | None"
    """The experiment whose model it is, or of whose model it is an export."""

    @property
    def adapter(self) -> dict[str, object]:
        """The configuration of an adapter; empty for anything else."""
        return json_object(self.folder / ADAPTER_CONFIG)

    @property
    def hub_base(self) -> tuple[str, str] | None:
        """Id and revision of the model of the hub that it comes from; None for any other."""
        from engine.spec.models import HubModel

        named: Mapping[str, object] = self.adapter
        if named.get("base_model_name_or_path") and named.get("revision"):
            return str(named["base_model_name_or_path"]), str(named["revision"])
        model = self.spec.experiment.model if self.spec else None
        return (model.id, model.revision) if isinstance(model, HubModel) else None

    @property
    def is_export(self) -> bool:
        """Whether it is the model of its experiment in another form."""
        return self.step.kind_name == "export"

    @property
    def is_model(self) -> bool:
        """Whether `[model] id` can name it."""
        return (self.folder / "config.json").is_file() and not self.adapter


def step_of(project: "Project", target: str) -> "tuple[Step, Spec | None]":
    """The step whose result TARGET names, and its experiment: a step, or the experiment whose model it makes, by name, spec or address."""
    if target in {step.name for step in project.graph}:
        step = project.graph[target]
        return step, next((spec for spec in project.specs if step.name in (_result(project, spec), *_exports(spec))), None)
    by_step = {name: spec for spec in project.specs if (name := _result(project, spec))}
    named = next((name for name, spec in by_step.items() if target in (spec.name, spec.path)), None)
    addresses = of_steps(project.root, (project.graph[name] for name in by_step))
    if found := named or only(target, addresses):
        return project.graph[found], by_step[found]
    if any(target in (spec.name, spec.path) for spec in project.specs):
        raise UserError(f"{target} makes no model: it evaluates one that exists")
    known = [*(spec.name for spec in project.specs), *(short(address) for address in addresses.values()), *(s.name for s in project.graph)]
    raise UserError(f"unknown experiment, step or content address: {target}", hint=did_you_mean(target, known))


def _result(project: "Project", spec: "Spec") -> str | None:
    """The step that makes the model of SPEC; None if none of its own does."""
    inputs = project.graph[f"predict-{spec.name}"].inputs
    producer = (inputs.get("adapter") or inputs["model"]).producer
    return producer if producer and producer.endswith(f"-{spec.name}") else None


def _exports(spec: "Spec") -> list[str]:
    """The steps that export the model of SPEC."""
    section = spec.experiment.export
    return [f"export-{spec.stem}-{into.label}" for into in section.formats] if section else []


def gather(project: "Project", target: str, folder: Path, on_hub: bool, published: tuple[str, str] | None) -> Source:
    """Write the result of the step that TARGET names to FOLDER, with all that it needs.

    ON_HUB: it goes to the hub, where an adapter names its base, which must be there too; PUBLISHED is its id and revision if it did not
    come from there. Raises UserError if the result is not built, damaged, or lacks its base.
    """
    step, spec = step_of(project, target)
    beside, store = project.root / step.provenance, project.store()
    statement = beside.read_bytes() if beside.is_file() else b""
    if (told := parse(statement)) is None:
        raise UserError(f"not built: {step.artifact}", hint=f"run: engine build {step.name}")
    # An export has a name of its own: it may be published in addition to the model.
    name, made = spec.name if spec and step.kind_name != "export" else step.name, project.root / step.artifact
    if not made.is_dir():
        raise UserError(f"not built, or not a folder: {step.artifact}", hint=f"run: engine build {step.name}")
    source = Source(name, step, folder, told, statement, store.ran(step), spec)
    if step.kind_name == "train":
        is_adapter = (made / ADAPTER_CONFIG).is_file()
        if on_hub and is_adapter and not published:
            with Remote(project.root) as remote:
                base = base_of(project.root, store, remote, told)
            if not base.hub:
                hint = "publish it too and name it: --base USER/NAME@COMMIT; or write a folder that contains a copy: --to DIR"
                raise UserError(f"the base of {name}, {base.name}, is not on the hub: nobody could load the adapter", hint=hint)
        base_as: Choice = "name" if on_hub and is_adapter else "auto"
        fetch(project.root, store, told.digest, folder, base_as, published, partial(prompts, project))
        # What fetch writes next to the folder is written inside it, in other words.
        for path in folder.parent.glob(f"{folder.name}.*"):
            path.unlink()
        return source
    shutil.copytree(made, folder)
    if (found := folder_digest(folder)) != told.digest:
        what = f"{step.artifact} has the content address {short(found)}, but its statement says {short(told.digest)}"
        raise UserError(what, hint=f"it was changed after it was built; run: engine build {step.name}")
    return source
