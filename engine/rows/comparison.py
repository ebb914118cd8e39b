"""Compares what a spec learns with what the tool learns from whose configuration it was imported; a subprocess of `stages` works."""

import json
import re
import subprocess
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from engine.core.errors import UserError
from engine.identity.text import recipe_of
from engine.plan.project import Project
from engine.rows.preview import tokens_request, tokens_step
from stages.process.starting import ours

if TYPE_CHECKING:
    from engine.spec.sections import Spec

MOST = 20_000
"""A comparison reads at most this many rows of a task."""


def compare(project: Project, spec: "Spec", task: str, theirs: Mapping[str, Any], shown: int, python: str | None) -> dict[str, Any]:
    """The comparison of one task; THEIRS names the tool, its configuration and the entry of the data set.

    SHOWN: rows to show token by token; PYTHON: an interpreter that has the tool. Raises UserError if the rows or the tokenizer
    are not here, and if the own code fails.
    """
    step = project.graph.find(spec.name, f"generate-{task}")
    tokens, why = tokens_step(project, spec, task)
    if step is None or tokens is None:
        raise UserError(f"{spec.path}: {why or 'no step generates the rows'}", spec.where("tasks", task))
    missing = [item.producer for item in step.inputs.values() if item.producer and not (project.root / item.path).exists()]
    if missing:
        raise UserError(f"{step.name} reads what is not built yet", hint=f"run: engine build {missing[0]}")
    request = {
        "name": step.name,
        "rows": MOST,
        "shown": shown,
        "generate": recipe_of(step.parameters),
        "inputs": {role: item.path for role, item in step.inputs.items()},
        "tokenize": tokens_request(tokens),
        "theirs": dict(theirs),
        "python": python,
    }
    done = subprocess.run(
        ours("stages.comparison"),
        cwd=project.root,
        input=json.dumps(request),
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
    )
    if done.returncode == 0:
        found: dict[str, Any] = {"task": task, **json.loads(done.stdout)}
        return found
    if said := re.search(r"^error: (.*)\Z", done.stderr, re.MULTILINE | re.DOTALL):
        raise UserError(said[1].rstrip())
    raise RuntimeError(f"the comparison failed:\n{done.stderr}")
