"""The requests that a step would send to a chat teacher, and how many answers are cached; counted if the rows are available."""

import json
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.core.graph import Graph, Step
from engine.identity.text import merge_resources, recipe_of, resources_of
from engine.plan.decide import Action, Plan
from stages import generate
from stages.generate.teachers.chat import Chat
from stages.process.starting import ours

_SECONDS = 60.0


@dataclass(frozen=True)
class TeacherRequests:
    """Numbers of outstanding requests and cached rows; None with a reason if they cannot be counted before the step runs."""

    numbers: Mapping[str, Any] | None
    unknown: str | None = None

    def as_data(self) -> dict[str, Any]:
        """Plain JSON values, for `--json`."""
        return dict(self.numbers) if self.numbers is not None else {"unknown": self.unknown}

    @property
    def words(self) -> tuple[str, ...]:
        """The phrases that the plan shows."""
        if self.numbers is None:
            return (f"requests unknown: {self.unknown}",)
        found, at_least = self.numbers, "" if self.numbers["complete"] else "at least "
        tokens = found["prompt_tokens"] + found["completion_tokens"]
        noun = "request" if found["requests"] == 1 else "requests"
        words = [f"{at_least}{found['requests']:,} {noun} to send", f"{found['rows_cached']:,} of {found['rows']:,} rows cached"]
        words += [f"~{tokens:,} tokens"] if found["requests"] else []
        return (
            (*words, f"cost ~{found['cost']:,.2f}" if found["cost"] >= 0.01 else "cost < 0.01")
            if found["cost"] is not None and found["requests"]
            else tuple(words)
        )


def requests_of(step: Step, graph: Graph, plan: Plan, root: Path) -> TeacherRequests | None:
    """The requests that STEP would send; None if it has no chat teacher or will not run."""
    parameters = step.parameters
    if not isinstance(parameters, generate.Parameters) or not isinstance(parameters.teacher, Chat):
        return None
    if plan[step.name].action not in (Action.RUN, Action.MAYBE):
        return None
    waiting = [i.producer for i in step.inputs.values() if i.producer and plan[i.producer].action in (Action.RUN, Action.MAYBE)]
    return TeacherRequests(None, f"{', '.join(waiting)} runs first") if waiting else _counted(step, root)


def _counted(step: Step, root: Path) -> TeacherRequests:
    """Build the requests in a subprocess: this process imports no body of a step."""
    values = merge_resources(recipe_of(step.parameters), resources_of(step.parameters))
    asked = {"name": step.name, "parameters": values, "inputs": {role: item.path for role, item in step.inputs.items()}}
    command = ours("stages.generate.asking.forecast")
    try:
        done = subprocess.run(command, cwd=root, input=json.dumps(asked), capture_output=True, text=True, check=False, timeout=_SECONDS)
    except subprocess.TimeoutExpired:
        return TeacherRequests(None, "reading the rows took more than {_SECONDS:.0f} s")
    if done.returncode:
        lines = [line.removeprefix("error: ") for line in done.stderr.splitlines() if line.startswith("error: ")]
        return TeacherRequests(None, lines[-1] if lines else "the rows could not be generated")
    return TeacherRequests(json.loads(done.stdout))
