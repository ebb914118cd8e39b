"""Trainings in groups of processes that are forked from this one: to start Python and its libraries takes longer than a tiny training."""

import dataclasses
import gc
import json
import os
import signal
import socket
import traceback
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from engine.core.errors import UserError
from engine.core.part import with_tuples
from stages.models.folders import prepare_process
from stages.process.job import Job, Preempted
from stages.process.parent import die_with_parent
from stages.train import Parameters
from stages.train.distributed.launch import problems_text
from stages.train.loop.division import Share
from stages.train.zero import Zero


def ready() -> None:
    """Import here what every child would import."""
    prepare_process(1)
    for library in ("deepspeed", "peft", "stages.train.loop.training"):
        import_module(library)


def forked(work: Callable[[], object], log: Path | None = None) -> int:
    """Run WORK in a child process, which shares what is imported already; stderr goes to LOG, stdout beside it; its process id."""
    ready()
    child = os.fork()
    if child:
        return child
    try:
        die_with_parent(signal.SIGKILL)
        # DeepSpeed collects garbage again and again; what is imported is none.
        gc.freeze()
        if log is not None:
            for stream, path in ((1, log.with_suffix(".out")), (2, log)):
                with path.open("ab") as file:
                    os.dup2(file.fileno(), stream)
        torch.set_num_threads(1)
        code = work()
        os._exit(code if isinstance(code, int) else 0)
    except BaseException:
        traceback.print_exc()
        os._exit(1)


def ended(child: int) -> int:
    """How a child has ended: its exit code, or the negative number of the signal."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def free_port() -> int:
    """A port that nobody listens at."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def group(work: Callable[[], object], processes: int, log: Path) -> list[int]:
    """Run WORK in PROCESSES children that find each other as those of torchrun do; their ids, by rank."""
    return apart([work] * processes, log)


def apart(works: Sequence[Callable[[], object]], log: Path) -> list[int]:
    """Run each of WORKS in a child of its own; the children find each other as those of torchrun do; their ids, by rank."""
    processes = len(works)
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": str(processes), "OMP_NUM_THREADS": "1"}

    def one(rank: int, work: Callable[[], object]) -> Callable[[], object]:
        def placed() -> object:
            os.environ.update(shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)})
            return work()

        return placed

    return [forked(one(rank, work), log) for rank, work in enumerate(works)]


def launch(folder: Path, cases: Sequence[dict[str, Any]], processes: int) -> dict[str, Any]:
    """Run CASES, one after another, in one group of PROCESSES; the outcome of each by name, and NAME.safetensors in FOLDER.

    A case has name, parameters, scratch, inputs, and `stop_after` where it is asked to stop after so many steps.
    """
    folder.mkdir()
    children = group(lambda: _train_all(folder, cases), processes, folder / "log")
    assert [ended(child) for child in children] == [0] * processes, (folder / "log").read_text("utf-8")[-5000:]
    return {case["name"]: json.loads((folder / f"{case['name']}.json").read_text("utf-8")) for case in cases}


def _train_all(folder: Path, cases: Sequence[dict[str, Any]]) -> None:
    from stages.train.distributed.worker import _group

    with _group(Parameters(method="full", zero=Zero(stage=1)), torch.device("cpu")) as (rank, count):
        for case in cases:
            outcome = _train(case, rank, count, folder)
            if rank == 0:
                (folder / f"{case['name']}.json").write_text(json.dumps(outcome), "utf-8")


def _train(case: dict[str, Any], rank: int, count: int, folder: Path) -> Any:
    from safetensors.torch import save_file

    from stages.train.loop import trainer
    from stages.train.loop.training import matter, work

    parameters = Parameters.model_validate(with_tuples(case["parameters"]))
    scratch = Path(case["scratch"])
    scratch.mkdir(parents=True, exist_ok=True)
    job = Job(case["name"], {role: Path(path) for role, path in case["inputs"].items()}, folder, None, scratch)
    original = trainer.StopRequest.__bool__
    if (stop := case.get("stop_after")) is not None:
        calls = iter(range(1, 10**6))
        trainer.StopRequest.__bool__ = lambda self: next(calls) >= stop  # type: ignore[method-assign]
    try:
        result = work(parameters, job, matter(parameters, job), Share(count, rank), torch.device("cpu"))
    except Preempted:
        return "preempted"
    except UserError as error:
        return problems_text(error)
    finally:
        trainer.StopRequest.__bool__ = original  # type: ignore[method-assign]
    if rank == 0:
        assert result.weights is not None
        save_file(result.weights, folder / f"{case['name']}.safetensors")
    return {"curve": [dataclasses.astuple(point) for point in result.curve], "validation": result.validation_loss}
