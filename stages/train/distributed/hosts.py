"""Which hosts a training runs on, and where its processes meet: from the environment, Slurm's variables or a hostfile."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from engine.core.errors import Location, UserError

DECIDES_NO_BYTES = True
"""Which processes a training runs in, and who watches them, is no part of its identity."""

PORT = 29500
"""torchrun's own default."""

_PATIENCE = 1800
"""Seconds for which a host waits for the others: their steps before the training need not take equally long."""


@dataclass(frozen=True)
class Host:
    """Where the processes meet, and who starts them."""

    address: str = "localhost"
    port: int = PORT
    rank: int | None = None
    """This host's number, where somebody starts the step on each host."""
    slurm: bool = False
    others: tuple[str, ...] = ()
    """The hosts, besides this one, that are started from here."""


def hosts(nodes: int, environment: Mapping[str, str]) -> Host:
    """The hosts of a training on NODES of them; raises UserError where nothing says which they are.

    MASTER_ADDR with NODE_RANK is what schedulers set that start a command on each host themselves, where each has a workspace of its own;
    SLURM_JOB_NODELIST is set inside an allocation; ADAPTERBUILD_HOSTFILE names a file with a host in each line, as mpirun and DeepSpeed
    read it, this host first: with these two the others see this host's workspace.
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
        f"resources.nodes is {nodes}, and nothing says which hosts these are",
        hint="set ADAPTERBUILD_HOSTFILE, run inside a Slurm allocation, or set MASTER_ADDR and NODE_RANK on each host",
    )


def patience(environment: Mapping[str, str]) -> int:
    """For how many seconds a host waits for the others."""
    return number(environment, "ADAPTERBUILD_HOST_TIMEOUT", _PATIENCE, 1, 10**7)


def number(environment: Mapping[str, str], name: str, default: int, least: int, end: int) -> int:
    """The whole number in the variable NAME, at least LEAST and below END; raises UserError for anything else."""
    value = environment.get(name, str(default))
    if not (value.isdecimal() and least <= int(value) < end):
        raise UserError(f"{name} is {value!r}, which is no whole number from {least} to {end - 1}", hint=f"set {name}, or unset it")
    return int(value)


def first_of_slurm(names: str) -> str:
    """The first host of Slurm's compressed list: `gpu[003-006,9],big1` begins with gpu003."""
    match = re.match(r"([^\[,]+)(?:\[(\d+))?", names)
    if match is None:
        raise UserError(f"SLURM_JOB_NODELIST is no list of hosts: {names!r}", hint="set MASTER_ADDR to the first host's name")
    return match[1] + (match[2] or "")


def _from_file(path: Path, nodes: int) -> list[str]:
    try:
        lines = path.read_text("utf-8").splitlines()
    except OSError as error:
        raise UserError(f"cannot read the hostfile {path}: {error.strerror}", hint="ADAPTERBUILD_HOSTFILE names it") from None
    names = [line.split()[0] for line in lines if line.strip() and not line.lstrip().startswith("#")]
    if len(names) < nodes:
        raise UserError(f"the hostfile names {len(names)} hosts, resources.nodes asks for {nodes}", Location(str(path)))
    return names
