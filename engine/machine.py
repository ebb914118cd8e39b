"""What a graph asks of the machine that builds it, found before any step runs."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from engine.errors import Problem, UserError
from engine.graph import Graph, Step
from engine.plan import Action

if TYPE_CHECKING:
    from engine.project import Project

_DEVICES = ("nvidia[0-9]*", "kfd", "dxg")
"""What the drivers of NVIDIA, of AMD, and of Windows' Linux show below /dev."""


def has_gpu(devices: Path = Path("/dev")) -> bool:
    """Whether there is a GPU that a process may use; asked of the system, since torch takes seconds to say so."""
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES", "all").strip() in ("", "-1")
    return not hidden and any(True for pattern in _DEVICES for _ in devices.glob(pattern))


def refuse_impossible(project: "Project", graph: Graph) -> None:
    """Raise UserError where a training that would run computes in numbers that this machine has not."""
    if has_gpu():
        return
    running = [d.name for d in project.plan(graph).decisions if d.name in graph and d.action in (Action.RUN, Action.MAYBE)]
    # Steps that are kept are not asked for their parameters, which would load every spec.
    if problems := [problem for name in running if name.startswith("train-") for problem in _without_gpu(graph[name])]:
        raise UserError(problems)


def _without_gpu(step: Step) -> list[Problem]:
    precision = getattr(step.parameters, "precision", None)
    if precision not in ("float16", "tf32"):
        return []
    hint = 'set training.precision to "bfloat16" or "float32", or build on a machine with a GPU'
    return [Problem(f"precision {precision} needs a GPU, and this machine has none", step.locate(("precision",)), hint)]
