"""Previews a task's first rows; a subprocess of `stages` does the heavy imports. Writes nothing."""

import json
import re
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from engine.core.errors import UserError, did_you_mean
from engine.core.graph import Step
from engine.identity.text import recipe_of
from engine.plan.project import Project
from stages import tokenize
from stages.process.starting import ours

if TYPE_CHECKING:
    from engine.spec.sections import Spec


@dataclass(frozen=True)
class Preview:
    """The first rows of a task, and the reason if they have no tokens."""

    task: str
    rows: tuple[dict[str, Any], ...]
    without_tokens: str | None

    def as_data(self) -> dict[str, Any]:
        """The preview as one JSON value."""
        return {"task": self.task, "rows": list(self.rows), "without_tokens": self.without_tokens}


def preview(project: Project, spec: "Spec", task: str, rows: int) -> Preview:
    """The first ROWS rows of TASK; raises UserError if the task is unknown, and the errors that the step would raise for these rows."""
    if task not in spec.experiment.tasks:
        raise UserError(f"{spec.path} has no task '{task}'", hint=did_you_mean(task, spec.experiment.tasks))
    step = project.graph.find(spec.name, f"generate-{task}")
    if step is None:
        raise UserError(f"no experiment uses task '{task}'", spec.where("tasks", task), "name it in mixture.tasks or evaluation.tasks")
    _refuse_missing(project, step)
    tokens, why = tokens_step(project, spec, task)
    built = project.root / step.artifact / "rows.jsonl"
    request = {
        "name": step.name,
        "rows": rows,
        "generate": recipe_of(step.parameters),
        "inputs": {role: item.path for role, item in step.inputs.items()},
        "built": str(built) if built.exists() else None,
        "tokenize": tokens_request(tokens) if tokens else None,
    }
    return Preview(task, tuple(_asked(project, request)), why)


def _refuse_missing(project: Project, step: Step) -> None:
    for item in step.inputs.values():
        if item.producer and not (project.root / item.path).exists():
            raise UserError(f"{step.name} reads {item.path}, which is not built yet", hint=f"run: engine build {item.producer}")


def tokens_step(project: Project, spec: "Spec", task: str) -> tuple[Step | None, str | None]:
    """The step that tokenizes the task for this spec; None and the reason if its tokens cannot be shown."""
    if spec.experiment.training is None:
        return None, f"{spec.path} trains nothing: there are no tokens to show"
    trained = project.graph.needed_for([f"train-{spec.name}"])
    split = project.graph.find(spec.name, f"split-{task}")
    rows = split.output("train.jsonl").path if split else None
    own = project.graph[f"mix-{spec.name}"].name
    found = [
        step
        for step in trained
        if step.kind is tokenize.KIND and step.inputs["train"].path == rows and own in project.graph.consumers[step.name]
    ]
    if not found:
        return None, f"{spec.path} does not train on {task}: there are no tokens to show"
    for role, item in found[0].inputs.items():
        if role.startswith("tokenizer/") and not (project.root / item.path).exists():
            hint = f"engine build {item.producer}" if item.producer else "add it to the model's folder"
            return None, f"text only: the tokenizer {item.path} does not exist yet ({hint})"
    return found[0], None


def tokens_request(step: Step) -> dict[str, Any]:
    """What a process of `stages` needs to tokenize rows as STEP does."""
    inputs = {role: item.path for role, item in step.inputs.items() if role not in ("train", "validation")}
    return {"name": step.name, "parameters": recipe_of(step.parameters), "inputs": inputs}


def _asked(project: Project, request: dict[str, Any]) -> list[dict[str, Any]]:
    """The answer of the process of `stages`; raises UserError with its message for a user error."""
    done = subprocess.run(
        ours("stages.preview"),
        cwd=project.root,
        input=json.dumps(request),
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
    )
    if done.returncode == 0:
        found: list[dict[str, Any]] = json.loads(done.stdout)
        return found
    if said := re.search(r"^error: (.*)\Z", done.stderr, re.MULTILINE | re.DOTALL):
        raise UserError(said[1].rstrip())
    raise RuntimeError(f"the preview failed:\n{done.stderr}")
