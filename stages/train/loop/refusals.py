"""Checks before a training starts: missing devices, disks and packages."""

import os
from pathlib import Path

import torch

from engine.core.errors import UserError
from stages.train import Parameters
from stages.train.distributed.hosts import hosts, patience
from stages.train.logging.loggers import refuse_missing
from stages.train.zero import Zero


def refuse_impossible(parameters: Parameters) -> None:
    """Raise UserError if this machine does not have the requested resources."""
    _refuse_devices(parameters.devices)
    # Raises if the hosts are not known.
    hosts(parameters.nodes, os.environ)
    patience(os.environ)
    _refuse_path(parameters.zero.path)
    _refuse_nvme(parameters.zero)
    refuse_missing(parameters.report_to)


def _refuse_devices(wanted: int) -> None:
    """Raise UserError if there are too few devices; without an accelerator, devices are processes, limited by the number of cores."""
    accelerators = torch.cuda.device_count() if torch.cuda.is_available() else 0
    here = accelerators or len(os.sched_getaffinity(0))
    if wanted > here:
        what = "GPUs" if accelerators else "CPU cores and no GPU"
        hint = f"set resources.devices to {here} or less; the result stays the same"
        raise UserError(f"resources.devices is {wanted}, but this machine has {here} {what}", hint=hint)


def _refuse_path(path: str | None) -> None:
    if path is not None and not (Path(path).is_dir() and os.access(path, os.W_OK)):
        what = f"resources.zero.path is {path}, which is {'not writable' if Path(path).is_dir() else 'not a folder'}"
        raise UserError(what, hint="set it to a folder on an NVMe disk, or offload to cpu")


def _refuse_nvme(zero: Zero) -> None:
    """Raise UserError without libaio, which DeepSpeed compiles against for NVMe offloading: a training would fail in its first step."""
    if "nvme" not in (zero.offload_optimizer, zero.offload_parameters):
        return
    from deepspeed import ops

    if not ops.__compatible_ops__.get("async_io", False):
        what = "resources.zero offloads to nvme, for which DeepSpeed needs libaio with its headers"
        raise UserError(what, hint="install it (Debian: apt install libaio-dev), or offload to cpu")
