"""One process of a training on several devices: `python -m stages.train.distributed.worker FOLDER`, started by torchrun."""

import hashlib
import json
import os
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from engine.core.errors import UserError
from engine.core.part import with_tuples
from stages.models.folders import prepare_process
from stages.process.job import PREEMPTED, Job, Preempted
from stages.process.parent import die_with_parent
from stages.train import Parameters
from stages.train.distributed.launch import problems_text

_LOST = ("Connection closed by peer", "Connection reset by peer", "Broken pipe")
"""Messages of gloo's RuntimeError when another process is gone."""


def main(folder: Path) -> int:
    """Do this process's part of the work described in FOLDER, and write the result there; returns the exit code."""
    die_with_parent(signal.SIGKILL)
    content = json.loads((folder / "work.json").read_text("utf-8"))
    parameters = Parameters.model_validate(with_tuples(content["parameters"]))
    prepare_process(int(os.environ["OMP_NUM_THREADS"]))
    from stages.train.loop.trainer import OutOfMemory

    try:
        _work(folder, parameters, _job(content["job"]), content["micro_rows"], content["mark"])
    except UserError as error:
        _leave(folder / f"error-{os.environ['RANK']}.json", problems_text(error))
        return 1
    except OutOfMemory as error:
        _leave(folder / "out-of-memory.json", json.dumps({"rows": error.rows}))
        # The other processes are blocked in a collective operation, so an orderly shutdown is impossible.
        os._exit(1)
    except Preempted as stopped:
        _leave(folder / "preempted.json", json.dumps({"what": str(stopped)}))
        return PREEMPTED
    except RuntimeError as error:
        if parameters.nodes == 1 or not any(saying in str(error) for saying in _LOST):
            raise
        _leave(folder / "lost.json", json.dumps({"what": str(error)}))
        # An orderly shutdown of the group is no longer possible.
        os._exit(1)
    return 0


def _job(fields: dict[str, Any]) -> Job:
    paths = {key: Path(fields[key]) if fields[key] else None for key in ("output", "plot", "scratch", "live")}
    return Job(name=fields["name"], inputs={role: Path(path) for role, path in fields["inputs"].items()}, **paths)  # type: ignore[arg-type]


def _work(folder: Path, parameters: Parameters, job: Job, micro_rows: int | None, mark: str) -> None:
    from stages.process.saved import CHECKPOINTS
    from stages.train.distributed.disks import Disks
    from stages.train.loop.checkpoints import write_whole
    from stages.train.loop.division import Share
    from stages.train.loop.training import default_device, matter, work

    device = default_device(int(os.environ["LOCAL_RANK"]))
    with _group(parameters, device) as (rank, count):
        disks = Disks(_here(parameters, job, mark), device)
        disks.mirror(job.scratch / CHECKPOINTS)
        result = work(parameters, job, matter(parameters, job), Share(count, rank), device, micro_rows)
        if rank == 0:
            assert result.weights is not None
            write_whole(folder / "result.safetensors", result.weights, {})
            values = {key: value for key, value in vars(result).items() if key != "weights"}
            _leave(folder / "result.json", json.dumps(values | {"curve": [asdict(point) for point in result.curve]}))
        for name in ("result.safetensors", "result.json"):
            disks.bring(folder / name)


def _here(parameters: Parameters, job: Job, mark: str) -> Any:
    from stages.train.distributed.disks import Here

    # The scratch folder's name is derived from recipe and inputs.
    work = json.dumps([job.name, job.scratch.name, parameters.model_dump(mode="json")])
    return Here(mark, hashlib.sha256(work.encode()).hexdigest(), socket.gethostname())


@contextmanager
def _group(parameters: Parameters, device: Any) -> Iterator[tuple[int, int]]:
    """The process group: created before the model, as ZeRO-3 requires, and destroyed before exit, to avoid crashes."""
    import torch
    from torch import distributed

    backend = "nccl" if device.type == "cuda" else "gloo"
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if parameters.zero.stage:
        import deepspeed

        # Otherwise the first use on a machine compiles C++ for a minute, for a collective used only in inference (DeepSpeed 0.19).
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
        deepspeed.init_distributed(dist_backend=backend, verbose=False)
    else:
        distributed.init_process_group(backend)
    try:
        yield distributed.get_rank(), distributed.get_world_size()
    finally:
        distributed.destroy_process_group()


def _leave(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(text, "utf-8")
    temporary.replace(path)


if __name__ == "__main__":
    # Until the loop handles signals, a stop request ends the process: there is no progress to lose yet.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    sys.exit(main(Path(sys.argv[1])))
