"""Checks that this machine can build a graph, before any step runs."""

import os
import shutil
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from engine.core.errors import Location, Problem, UserError
from engine.core.graph import Graph, Step
from engine.plan.decide import Action

if TYPE_CHECKING:
    from engine.plan.project import Project

_DEVICES = ("nvidia[0-9]*", "kfd", "dxg")
"""Device files of the NVIDIA, AMD and WSL drivers below /dev."""

_PACKAGES = {"tensorboard": ("tensorboard", "tensorboard"), "wandb": ("wandb", "wandb"), "mlflow": ("mlflow", "mlflow-skinny")}
"""For each logger, its import name and its distribution name."""


def has_gpu(devices: Path = Path("/dev")) -> bool:
    """Whether this process may use a GPU; read from /dev, since importing torch takes seconds."""
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES", "all").strip() in ("", "-1")
    return not hidden and any(True for pattern in _DEVICES for _ in devices.glob(pattern))


def devices_here(devices: Path = Path("/dev")) -> int | None:
    """Number of devices for a training: GPUs, else CPU cores; None with a driver other than NVIDIA's, whose GPUs are not counted here."""
    if not has_gpu(devices):
        return len(os.sched_getaffinity(0))
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    found = len(visible.split(",")) if visible else len(list(devices.glob(_DEVICES[0])))
    return found or None


def refuse_impossible(project: "Project", graph: Graph) -> None:
    """Raise UserError if a training that would run needs a precision, devices, folders or disk space that this machine lacks."""
    running = [d.name for d in project.plan(graph).decisions if d.name in graph and d.action in (Action.RUN, Action.MAYBE)]
    # Parameters of kept steps are not read: that would load every spec.
    trainings = [graph[name] for name in running if name.startswith("train-")]
    root = project.root
    if problems := [problem for step in trainings for problem in (*missing(step), *disk_shortage(step, graph, root))]:
        raise UserError(problems)


def missing(step: Step) -> Iterator[Problem]:
    """A problem for each thing that a training needs and this machine lacks."""
    parameters = step.parameters
    precision = getattr(parameters, "precision", None)
    if precision in ("float16", "tf32") and not has_gpu():
        hint = 'set training.precision to "bfloat16" or "float32", or build on a machine with a GPU'
        yield Problem(f"precision {precision} needs a GPU, but this machine has none", step.locate(("precision",)), hint)
    wanted, here = getattr(parameters, "devices", 1), devices_here()
    if here is not None and wanted > here:
        what = f"resources.devices is {wanted}, but this machine has {here} {'GPUs' if has_gpu() else 'CPU cores and no GPU'}"
        hint = f"set resources.devices to {here} or less; the result stays the same"
        yield Problem(what, step.locate(("devices",)), hint)
    path = getattr(getattr(parameters, "zero", None), "path", None)
    if path is not None and not (Path(path).is_dir() and os.access(path, os.W_OK)):
        what = f"resources.zero.path is {path}, which is {'not writable' if Path(path).is_dir() else 'not a folder'}"
        yield Problem(what, step.locate(("zero", "path")), "set it to a folder on an NVMe disk, or offload to cpu")
    yield from missing_loggers(dict.fromkeys(getattr(parameters, "report_to", ()), step.locate(("report_to",))), "error")


def missing_loggers(named: Mapping[str, Location | None], severity: str = "warning") -> list[Problem]:
    """A problem for each logger of NAMED whose package is not installed here."""
    return [
        Problem(
            f"resources.report_to names {name}, but the package {_PACKAGES[name][0]} is not installed",
            where,
            f"run: pip install {_PACKAGES[name][1]}, or remove it from resources.report_to",
            severity,
        )
        for name, where in named.items()
        if find_spec(_PACKAGES[name][0]) is None
    ]


def disk_shortage(step: Step, graph: Graph, root: Path) -> Iterator[Problem]:
    """A problem if the disk has too little space for a training's checkpoints; none while the model's sizes are unknown."""
    # These import pydantic, which a build that trains nothing does not need.
    from engine.checks.model_fit import model_configuration
    from engine.estimate.memory import FLOAT32
    from engine.estimate.methods import counts
    from engine.estimate.models import model_of
    from engine.estimate.training import gigabytes
    from stages import train
    from stages.train.memory.checkpoint_room import checkpoint_bytes

    config = model_configuration(step, graph, root)
    model = model_of(config) if config else None
    counted = counts(model, step.parameters.method) if model and isinstance(step.parameters, train.Parameters) else None
    if counted is None:
        return
    needed, free = checkpoint_bytes(FLOAT32 * counted.trained), shutil.disk_usage(root).free
    if free < needed:
        what = f"checkpoints need {gigabytes(needed)}, but the disk of {root.resolve()} has {gigabytes(free)} free"
        yield Problem(what, step.locate(("method",)), "free disk space (engine gc), or train fewer weights")
