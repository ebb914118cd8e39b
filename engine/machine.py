"""What a graph asks of the machine that builds it, found before any step runs."""

import os
from pathlib import Path

from engine.errors import Problem, UserError
from engine.graph import Graph
from engine.plan import Action
from engine.project import Project
from stages import train

_DEVICES = ("nvidia[0-9]*", "kfd", "dxg")
"""What the drivers of NVIDIA, of AMD, and of Windows' Linux show below /dev."""


def has_gpu(devices: Path = Path("/dev")) -> bool:
    """Whether there is a GPU that a process may use; asked of the system, since torch takes seconds to say so."""
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES", "all").strip() in ("", "-1")
    return not hidden and any(True for pattern in _DEVICES for _ in devices.glob(pattern))


def refuse_impossible(project: Project, graph: Graph) -> None:
    """Raise UserError where a training that would run computes in numbers that this machine has not."""
    problems = {} if has_gpu() else dict(_without_gpu(graph))
    if not problems:
        return
    plan = project.plan(graph)
    if wanted := [problem for name, problem in problems.items() if plan[name].action in (Action.RUN, Action.MAYBE)]:
        raise UserError(wanted)


def _without_gpu(graph: Graph) -> list[tuple[str, Problem]]:
    return [
        (
            step.name,
            Problem(
                f"precision {step.parameters.precision} needs a GPU, and this machine has none",
                step.locate(("precision",)),
                'set training.precision to "bfloat16" or "float32", or build on a machine with a GPU',
            ),
        )
        for step in graph
        if isinstance(step.parameters, train.Parameters) and step.parameters.precision in ("float16", "tf32")
    ]
