"""Starts the processes of a training on several devices or hosts with torchrun, and waits for them.

The step's process then does not train: it writes a work description, starts torchrun, forwards stop requests, and reads the result.
"""

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from secrets import token_hex
from typing import TYPE_CHECKING, Any

from engine.core.errors import Location, Problem, UserError
from stages.process.job import Job, Preempted
from stages.process.numerics import HANDED_ON
from stages.process.parent import PARENT, named
from stages.process.starting import entry, ours
from stages.train import Parameters
from stages.train.distributed.hosts import Host, hosts, patience

if TYPE_CHECKING:
    from stages.train.loop.training import Result

DECIDES_NO_BYTES = True
"""Not part of a step's identity: processes and their supervision do not affect results."""

FOLDER = "processes"
"""Folder in scratch through which the step and its processes communicate."""


_HANDED_ON = ("PATH", "PYTHONPATH", "PYTHONSAFEPATH", "OMP_", "GLOO_", "NCCL_", *HANDED_ON)
"""Prefixes of the variables passed to hosts started with ssh; no secrets, which would be visible on the command line."""


def is_needed(parameters: Parameters) -> bool:
    """Whether a training needs child processes."""
    return parameters.devices * parameters.nodes > 1 or parameters.zero.stage > 0


def train(parameters: Parameters, job: Job) -> "Result":
    """Train in child processes; raises the same errors as a single process."""
    folder = (job.scratch / FOLDER).absolute()
    micro_rows = None
    while True:
        _write_work(folder, parameters, job, micro_rows)
        _run(parameters, folder, job.scratch / "stop")
        if (folder / "out-of-memory.json").exists():
            micro_rows = json.loads((folder / "out-of-memory.json").read_text("utf-8"))["rows"]
            _refuse_alone(parameters, micro_rows)
            print(f"train: out of memory, continuing with a micro-batch of {micro_rows} rows", file=sys.stderr, flush=True)
            continue
        _raise_found(folder, parameters.nodes)
        return _read_result(folder)


def _refuse_alone(parameters: Parameters, rows: int) -> None:
    """Raise UserError if the step was started separately on each host, since this one cannot restart the others."""
    if hosts(parameters.nodes, os.environ).rank is not None:
        hint = f"set resources.micro_batch = {rows} in the workspaces of all hosts, and start the step again on each"
        raise UserError("out of memory on this host, which cannot restart the others", hint=hint)


def _write_work(folder: Path, parameters: Parameters, job: Job, micro_rows: int | None) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.iterdir():
        path.unlink()
    fields = {key: str(value) if isinstance(value, Path) else value for key, value in vars(job).items()}
    fields["inputs"] = {role: str(path) for role, path in job.inputs.items()}
    # Hosts with a different mark in their folder have separate disks.
    content = {"parameters": parameters.model_dump(mode="json"), "job": fields, "micro_rows": micro_rows, "mark": token_hex(16)}
    (folder / "work.json").write_text(json.dumps(content), "utf-8")


def commands(parameters: Parameters, folder: Path, environment: Mapping[str, str], cwd: Path) -> list[list[str]]:
    """Commands that start the training's processes, one per host that is started from here."""
    found: Host = hosts(parameters.nodes, environment)
    base = ours("stages.train.distributed.torchrun", f"--nproc-per-node={parameters.devices}", f"--nnodes={parameters.nodes}")
    worker = [entry(), "stages.train.distributed.worker", str(folder)]
    if parameters.nodes == 1:
        return [[*base, "--standalone", *worker]]
    meeting = f"--rdzv-conf=timeout={patience(environment)}"
    address = ["--rdzv-backend=static", meeting, f"--master-addr={found.address}", f"--master-port={found.port}"]
    if found.slurm:
        # srun starts one torchrun per host of the allocation; each reads its rank from Slurm's variables.
        return [["srun", f"--nodes={parameters.nodes}", "--ntasks-per-node=1", *base, *address, *worker]]
    here = [*base, *address]
    if found.rank is not None:
        return [[*here, f"--node-rank={found.rank}", *worker]]
    started = [[*here, "--node-rank=0", *worker]]
    for rank, name in enumerate(found.others, 1):
        variables = [f"{key}={value}" for key, value in sorted(environment.items()) if key.startswith(_HANDED_ON)]
        remote = shlex.join(["env", "-C", str(cwd), *variables, *here, f"--node-rank={rank}", *worker])
        started.append(["ssh", "-tt", "-o", "BatchMode=yes", name, remote])
    return started


def _run(parameters: Parameters, folder: Path, stop: Path) -> None:
    """Run the processes until they exit."""
    from stages.train.loop.guards import StopRequest

    stop.unlink(missing_ok=True)
    asked = StopRequest()
    with asked.listening():
        environment = os.environ | {"OMP_NUM_THREADS": str(parameters.threads or _threads(parameters.devices))}
        if parameters.nodes == 1:
            # On several hosts, schedulers and shells are in between.
            environment[PARENT] = named()
        started = [
            # Our stdout is for data; the processes have none.
            subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=sys.stderr.fileno())
            for command in commands(parameters, folder, environment, Path.cwd())
        ]
        try:
            _wait(started, asked, stop)
        finally:
            for process in started:
                if process.poll() is None:
                    process.kill()
                process.wait()
            stop.unlink(missing_ok=True)


def _wait(started: list["subprocess.Popen[bytes]"], asked: Any, stop: Path) -> None:
    while any(process.poll() is None for process in started):
        try:
            next(process for process in started if process.poll() is None).wait(0.1)
        except subprocess.TimeoutExpired:
            if asked:
                stop.touch()


def _threads(devices: int) -> int:
    return max(1, len(os.sched_getaffinity(0)) // devices)


def _raise_found(folder: Path, nodes: int) -> None:
    """Raise the error that the processes reported, if any."""
    for path in sorted(folder.glob("error-*.json")):
        problems = json.loads(path.read_text("utf-8"))
        raise UserError(Problem(p["what"], Location(**p["where"]) if p["where"] else None, p["hint"]) for p in problems)
    if (folder / "preempted.json").exists():
        raise Preempted(json.loads((folder / "preempted.json").read_text("utf-8"))["what"])
    if (folder / "lost.json").exists():
        raise UserError(
            "the processes of another host have exited", hint=f"see its messages; then start the step again on all {nodes} hosts"
        )
    if not (folder / "result.json").exists():
        raise RuntimeError("a process of the training exited without a result; see its messages above")


def problems_text(error: UserError) -> str:
    """The problems of ERROR as JSON."""
    return json.dumps([asdict(problem) for problem in error.problems])


def _read_result(folder: Path) -> "Result":
    from safetensors.torch import load_file

    from stages.train.loop.record import Point
    from stages.train.loop.training import Result

    values = json.loads((folder / "result.json").read_text("utf-8"))
    curve = [Point(**{**point, "measures": tuple(point["measures"])}) for point in values.pop("curve")]
    return Result(curve, weights=load_file(folder / "result.safetensors"), **values)
