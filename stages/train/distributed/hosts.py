"""The hosts of a training and their rendezvous, from the environment, Slurm's variables or a hostfile."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from engine.core.errors import Location, UserError

DECIDES_NO_BYTES = True
"""Not part of a step's identity: processes and their supervision do not affect results."""

PORT = 29500
"""torchrun's default port."""

_PATIENCE = 1800
"""Seconds that a host waits for the others, whose preceding steps may take longer."""


@dataclass(frozen=True)
class Host:
    """The rendezvous of the processes, and how they are started."""

    address: str = "localhost"
    port: int = PORT
    rank: int | None = None
    """This host's rank, if the step is started separately on each host."""
    slurm: bool = False
    others: tuple[str, ...] = ()
    """The other hosts, if they are started from here."""


def hosts(nodes: int, environment: Mapping[str, str]) -> Host:
    """The hosts of a training on NODES hosts; raises UserError if they cannot be determined.

    MASTER_ADDR and NODE_RANK are set by schedulers that start a command on each host, with separate workspaces; SLURM_JOB_NODELIST is set
    within an allocation; ADAPTERBUILD_HOSTFILE is a file with one host per line, in the format of mpirun and DeepSpeed, this host first:
    with these two, all hosts share this host's workspace.
    """
    if nodes == 1:
        return Host()
    port = number(environment, "MASTER_PORT", PORT, 1, 2**16)
    if "MASTER_ADDR" in environment and "NODE_RANK" in environment:
        return Host(environment["MASTER_ADDR"], port, number(environment, "NODE_RANK", 0, 0, nodes))
    if "SLURM_JOB_NODELIST" in environment:
        return Host(environment.get("MASTER_ADDR", first_of_slurm(environment["SLURM_JOB_NODELIST"])), port, slurm=True)
    if "ADAPTERBUILD_HOSTFILE" in environment:
        names = _from_file(Path(environment["ADAPTERBUILD_HOSTFILE"]), nodes)
        return Host(environment.get("MASTER_ADDR", names[0]), port, others=tuple(names[1:nodes]))
    raise UserError(
        f"resources.nodes is {nodes}, but the hosts are not known",
        hint="set ADAPTERBUILD_HOSTFILE, run inside a Slurm allocation, or set MASTER_ADDR and NODE_RANK on each host",
    )


def patience(environment: Mapping[str, str]) -> int:
    """Seconds that a host waits for the others."""
    return number(environment, "ADAPTERBUILD_HOST_TIMEOUT", _PATIENCE, 1, 10**7)


def number(environment: Mapping[str, str], name: str, default: int, least: int, end: int) -> int:
    """The integer in the variable NAME, from LEAST to END - 1; raises UserError for anything else."""
    value = environment.get(name, str(default))
    if not (value.isdecimal() and least <= int(value) < end):
        raise UserError(f"{name} must be an integer from {least} to {end - 1}, got {value!r}", hint=f"correct {name}, or unset it")
    return int(value)


def first_of_slurm(names: str) -> str:
    """The first host of Slurm's compressed list: gpu003 of `gpu[003-006,9],big1`."""
    match = re.match(r"([^\[,]+)(?:\[(\d+))?", names)
    if match is None:
        raise UserError(f"cannot parse SLURM_JOB_NODELIST: {names!r}", hint="set MASTER_ADDR to the first host's name")
    return match[1] + (match[2] or "")


def _from_file(path: Path, nodes: int) -> list[str]:
    try:
        lines = path.read_text("utf-8").splitlines()
    except OSError as error:
        raise UserError(f"cannot read the hostfile {path}: {error.strerror}", hint="check ADAPTERBUILD_HOSTFILE") from None
    names = [line.split()[0] for line in lines if line.strip() and not line.lstrip().startswith("#")]
    if len(names) < nodes:
        raise UserError(f"the hostfile lists {len(names)} hosts, but resources.nodes is {nodes}", Location(str(path)))
    return names
