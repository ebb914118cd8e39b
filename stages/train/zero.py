"""ZeRO (Rajbhandari et al., 2020, arXiv:1910.02054): what the devices of a training partition, and its DeepSpeed configuration."""

from typing import Any, Literal, Self

from pydantic import model_validator
from pydantic_core import PydanticCustomError

from engine.core.part import Part, resource

Place = Literal["cpu", "nvme"]


class Zero(Part):
    """What the devices partition: 1 optimizer states, 2 also gradients, 3 also weights; 0 nothing."""

    stage: Literal[0, 1, 2, 3] = resource(0, "ZeRO stage.")
    offload_optimizer: Place | None = resource(None, "Where optimizer states are offloaded; if unset, they stay on the device.")
    offload_parameters: Place | None = resource(None, "Where weights are offloaded (stage 3 only).")
    path: str | None = resource(None, "Folder on an NVMe disk for offloaded tensors.", min_length=1)

    @model_validator(mode="after")
    def _offload_fits(self) -> Self:
        if self.offload_optimizer and not self.stage:
            raise _misfit("offload_optimizer", "only partitioned tensors can be offloaded: set stage to 1, 2 or 3")
        if self.offload_parameters and self.stage != 3:
            raise _misfit("offload_parameters", "offloading weights needs stage = 3")
        if self.offload_optimizer == "nvme" and self.stage != 3:
            raise _misfit("offload_optimizer", "offloading optimizer states to nvme needs stage = 3; cpu works with 1, 2 and 3")
        if "nvme" in (self.offload_optimizer, self.offload_parameters) and not self.path:
            raise _misfit("path", "offloading to nvme needs path, a folder on that disk")
        return self


def _misfit(at: str, message: str) -> PydanticCustomError:
    return PydanticCustomError("zero", message, {"at": (at,)})


def as_zero(value: Literal[0, 1, 2, 3] | Zero) -> Zero:
    """VALUE as a table; the short form `zero = 2` sets the stage."""
    return value if isinstance(value, Zero) else Zero(stage=value)


def deepspeed_config(zero: Zero, max_grad_norm: float) -> dict[str, Any]:
    """The DeepSpeed configuration of a training.

    Bucket sizes are DeepSpeed's defaults, which affect memory, not the result. Batch sizes are set to one row and one accumulation step:
    the training loop divides global batches, marks accumulation boundaries and divides by the supervised tokens, so DeepSpeed averages
    nothing.
    """
    optimization: dict[str, Any] = {"stage": zero.stage}
    for name, place in (("offload_optimizer", zero.offload_optimizer), ("offload_param", zero.offload_parameters)):
        if place:
            optimization[name] = {"device": place} | ({"nvme_path": zero.path} if place == "nvme" else {})
    return {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "gradient_clipping": max_grad_norm,
        "zero_optimization": optimization,
        # The recipe's optimizer is used with and without offloading.
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "steps_per_print": 2**31,
    }
