"""ZeRO (Rajbhandari et al., 2020, arXiv:1910.02054): what the devices of a training share, and the DeepSpeed configuration of it."""

from typing import Any, Literal, Self

from pydantic import model_validator
from pydantic_core import PydanticCustomError

from engine.core.part import Part, resource

Place = Literal["cpu", "nvme"]


class Zero(Part):
    """What the devices share: 1 the optimizer's states, 2 the gradients too, 3 the weights too; 0 nothing."""

    stage: Literal[0, 1, 2, 3] = resource(0, "ZeRO stage.")
    offload_optimizer: Place | None = resource(None, "Where optimizer states lie while they are not needed; none given: on the device.")
    offload_parameters: Place | None = resource(None, "Where weights lie while they are not needed (stage 3).")
    path: str | None = resource(None, "The folder of an NVMe disk, for what is offloaded to it.", min_length=1)

    @model_validator(mode="after")
    def _offload_fits(self) -> Self:
        if self.offload_optimizer and not self.stage:
            raise _misfit("offload_optimizer", "only what ZeRO shares can be offloaded: set stage to 1, 2 or 3")
        if self.offload_parameters and self.stage != 3:
            raise _misfit("offload_parameters", "weights are offloaded by stage 3 alone")
        if self.offload_optimizer == "nvme" and self.stage != 3:
            raise _misfit("offload_optimizer", "optimizer states go to nvme with stage 3 alone; cpu works with 1, 2 and 3")
        if "nvme" in (self.offload_optimizer, self.offload_parameters) and not self.path:
            raise _misfit("path", "nvme needs the path of a folder on that disk")
        return self


def _misfit(at: str, message: str) -> PydanticCustomError:
    return PydanticCustomError("zero", message, {"at": (at,)})


def as_zero(value: Literal[0, 1, 2, 3] | Zero) -> Zero:
    """What a spec says, its short form `zero = 2` as a table."""
    return value if isinstance(value, Zero) else Zero(stage=value)


def deepspeed_config(zero: Zero, max_grad_norm: float) -> dict[str, Any]:
    """The DeepSpeed configuration of a training.

    Sizes of buckets are left out: DeepSpeed's own bound the memory, not the result. One row and one accumulation step stand for all sizes:
    the training loop itself cuts global batches, says when a gradient is complete and divides by the supervised tokens, so that nothing of
    a global batch is left to DeepSpeed's own averaging.
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
        # The optimizer is the recipe's own, the same with and without offloading.
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "steps_per_print": 2**31,
    }
