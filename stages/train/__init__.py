"""train: a model or an adapter learns from a mixture."""

from typing import Annotated, Literal

from engine.part import Kind, Part, named, recipe, resource
from stages.train.batching import Batching, Padded
from stages.train.methods import Method


class GlobalBatch(Part):
    """What one optimizer step learns from, over all devices and accumulation steps."""

    rows: int = recipe(32, "Rows per optimizer step; bins where batching is packed.", gt=0)


class Schedule(Part):
    """How the learning rate moves over the steps."""

    kind: Literal["constant", "linear", "cosine"] = recipe("cosine", "Shape after the warm-up.")
    warmup_ratio: float = recipe(0.03, "Share of the steps in which the learning rate rises from zero.", ge=0, le=1)
    floor: float = recipe(0.0, "Share of the learning rate that is left at the end.", ge=0, le=1)


class Training(Part):
    """How a model is trained, as a spec's training says it."""

    method: Method = recipe(description="Which weights are trained.")
    global_batch: GlobalBatch = recipe(GlobalBatch(), "What one optimizer step learns from.")
    learning_rate: float = recipe(2e-4, "Peak learning rate.", gt=0)
    schedule: Annotated[Schedule, named] = recipe(Schedule(), "How the learning rate moves.")
    betas: tuple[float, float] = recipe((0.9, 0.999), "AdamW's decay rates of the two moments.")
    weight_decay: float = recipe(0.0, "AdamW's decoupled weight decay.", ge=0)
    max_grad_norm: float = recipe(1.0, "The gradient is scaled down to this norm.", gt=0)
    batching: Batching = resource(
        Padded(), "How rows lie in micro-batches; `packed` also orders the mixture by bins, and that is part of the mixture's recipe."
    )


class Parameters(Training):
    """How a model is trained, and on what; the rows are the mixture's matter."""

    seed: int = recipe(0, "Seed of dropout and of the adapter's first weights.", ge=0, lt=2**63)
    dropout_rows: int | None = recipe(
        None, "Rows for which dropout is drawn at once: the micro-batch where there is dropout, since it then decides the result.", gt=0
    )
    micro_batch: int | None = resource(None, "Rows that a device computes at once; none given: the whole global batch.", gt=0)
    threads: int | None = resource(None, "CPU threads; none given: all cores.", gt=0)


KIND = Kind(
    "train",
    "Train a model or an adapter on a mixture.",
    Parameters,
    environment=("accelerate", "numpy", "safetensors", "torch", "transformers"),
    slot="device",
    plots=True,
)
