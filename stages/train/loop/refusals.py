"""What can be refused before any work is done: devices, disks and packages that are not there."""

import os
from pathlib import Path

import torch

from engine.core.errors import UserError
from stages.train import Parameters
from stages.train.distributed.hosts import hosts, patience
from stages.train.logging.loggers import refuse_missing
from stages.train.zero import Zero


def refuse_impossible(parameters: Parameters) -> None:
    """Raise UserError where this machine cannot do what the resources ask for."""
    _refuse_devices(parameters.devices)
    # Raises where nothing says which hosts these are.
    hosts(parameters.nodes, os.environ)
    patience(os.environ)
    _refuse_path(parameters.zero.path)
    _refuse_nvme(parameters.zero)
    refuse_missing(parameters.report_to)


def _refuse_devices(wanted: int) -> None:
    """Without an accelerator a device is a process, and more of them than cores only wait for each other."""
    accelerators = torch.cuda.device_count() if torch.cuda.is_available() else 0
    here = accelerators or len(os.sched_getaffinity(0))
    if wanted > here:
        what = "accelerators" if accelerators else "processor cores and no accelerator"
        hint = f"set resources.devices to {here} or less; it changes nothing about the result"
        raise UserError(f"resources.devices asks for {wanted}, and this machine has {here} {what}", hint=hint)


def _refuse_path(path: str | None) -> None:
    if path is not None and not (Path(path).is_dir() and os.access(path, os.W_OK)):
        what = "is no folder" if not Path(path).is_dir() else "cannot be written to"
        raise UserError(f"resources.zero.path {path} {what}", hint="name a folder on the disk that tensors are to be offloaded to")


def _refuse_nvme(zero: Zero) -> None:
    """DeepSpeed reads and writes such a disk through libaio, which it compiles against; without it a training fails in its first step."""
    if "nvme" not in (zero.offload_optimizer, zero.offload_parameters):
        return
    from deepspeed import ops

    if not ops.__compatible_ops__.get("async_io", False):
        what = "resources.zero offloads to nvme, and DeepSpeed cannot reach a disk here: it needs libaio with its headers"
        raise UserError(what, hint="install it (Debian: apt install libaio-dev), or offload to cpu")
