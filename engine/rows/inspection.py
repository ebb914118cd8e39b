"""Inspects one row as a training sees it; a subprocess loads the models, since this process imports no torch."""

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.artifacts.addresses import of_steps, only
from engine.core.errors import UserError, did_you_mean
from engine.core.graph import Graph, Step
from engine.identity.text import short
from engine.plan.project import Project
from stages.process.starting import ours

if TYPE_CHECKING:
    from engine.spec.sections import Spec

COLUMNS = ("", "token", "supervised", "base predicts", "p(token)", "trained predicts", "p(token)")
SPLITS = ("train", "validation")


def inspect(project: Project, target: str, row: int, task: str | None, split: str) -> dict[str, Any]:
    """Each position of a row as the training of TARGET sees it; raises UserError if the target is unknown or not built."""
    spec = spec_of(project, target)
    chosen = _task(spec, task)
    step = project.graph[f"train-{spec.name}"]
    request = _request(step, project.graph, spec, chosen, split) | {"row": row}
    paths = [request[key] for key in ("model", "vocabulary", "adapter", "trained", "tokens") if key in request]
    missing = [path for path in paths if not (project.root / path).exists()]
    if missing:
        raise UserError(f"not built: {', '.join(missing)}", hint=f"run: engine build {step.name}")
    return {"experiment": spec.name, "task": chosen, "split": split, **_ask(project.root, request)}


def spec_of(project: Project, target: str) -> "Spec":
    """The spec that TARGET names: an experiment, a spec's file, or an adapter by its content address."""
    by_name = {spec.name: spec for spec in project.specs}
    if target in by_name:
        return by_name[target]
    by_step = {project.graph[f"train-{name}"].name: spec for name, spec in by_name.items() if spec.experiment.training}
    addresses = of_steps(project.root, (project.graph[name] for name in by_step))
    if found := only(target, addresses):
        return by_step[found]
    spec = next((spec for spec in project.specs if spec.path == os.path.normpath(target)), None)
    if spec is None:
        project.refuse_sweep(target)
        known = [*by_name, *(short(address) for address in addresses.values())]
        raise UserError(f"unknown experiment, spec or adapter: {target}", hint=did_you_mean(target, known))
    return spec


def _task(spec: "Spec", wanted: str | None) -> str:
    if spec.experiment.mixture is None:
        what = f"{spec.path} trains nothing: there are no rows as training sees them"
        raise UserError(what, hint="to see its predictions: engine report")
    tasks = spec.experiment.mixture.tasks
    if wanted is not None and wanted not in tasks:
        raise UserError(f"{spec.path} does not train on task '{wanted}'", spec.where("mixture", "tasks"), did_you_mean(wanted, tasks))
    return wanted or tasks[0]


def _request(step: Step, graph: Graph, spec: "Spec", task: str, split: str) -> dict[str, Any]:
    role = {"train": "tokens", "validation": "validation"}[split]
    assert spec.experiment.method
    trained = "adapter" if spec.experiment.method.makes_adapter else "trained"
    base = {name: step.inputs[name].path for name in ("model", "vocabulary") if name in step.inputs}
    paths = base | {trained: step.artifact, "tokens": step.inputs[f"{role}/{task}"].path}
    return paths | {"threads": spec.experiment.resources.threads, "numerics": spec.experiment.resources.numerics}


def _ask(root: Path, request: Mapping[str, Any]) -> dict[str, Any]:
    """The answer of the process that loads the models; raises UserError with its message if it fails."""
    command = ours("stages.inspection")
    done = subprocess.run(command, cwd=root, input=json.dumps(request), capture_output=True, text=True, check=False)
    if done.returncode:
        lines = [line.removeprefix("error: ") for line in done.stderr.strip().splitlines()]
        raise UserError("\n".join(lines) or f"the inspection process exited with status {done.returncode}")
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def title(answer: Mapping[str, Any]) -> str:
    """The title of the table, in one line."""
    losses = ", ".join(f"{name} {value:.3f}" for name, value in answer["loss"].items() if value is not None)
    place = f"{answer['experiment']}: row {answer['row']} of {answer['rows']:,} of {answer['task']} ({answer['split']})"
    return f"{place}; loss per supervised token: {losses or 'no supervised tokens'}"


def rows(answer: Mapping[str, Any]) -> list[list[str]]:
    """The rows of the table; readable without colour."""
    return [
        [str(p["position"]), quoted(p["token"]), "yes" if p["supervised"] else "", *_view(p["base"]), *_view(p["trained"])]
        for p in answer["positions"]
    ]


def _view(view: Mapping[str, Any] | None) -> Sequence[str]:
    if view is None:
        return "", ""
    return f"{quoted(view['says'])} {view['says_probability']:.0%}", f"{view['truth_probability']:.1%}"


def quoted(text: str) -> str:
    """A token's text as a JSON string: quotes and escapes make white space visible."""
    return json.dumps(text, ensure_ascii=False)
