"""train: a model or an adapter learns from a mixture."""

from typing import Annotated, Literal

from engine.core.part import Kind, Part, named, recipe, resource
from stages.models.attention import Attention
from stages.train.batching import Batching, Padded
from stages.train.methods import Method
from stages.train.optimizers import Optimizer
from stages.train.optimizers.adamw import AdamW
from stages.train.zero import Zero


class GlobalBatch(Part):
    """What one optimizer step learns from, over all devices and accumulation steps."""

    rows: int = recipe(32, "Rows per optimizer step; bins where batching is packed.", gt=0)
    tokens: int | None = recipe(None, "In place of rows: as many rows as have at most so many tokens, one at least.", gt=0)


class Schedule(Part):
    """How the learning rate moves over the steps."""

    kind: Literal["constant", "linear", "cosine", "inverse_sqrt", "wsd"] = recipe("cosine", "Shape after the warm-up.")
    warmup_ratio: float = recipe(0.03, "Share of the steps in which the learning rate rises from zero.", ge=0, le=1)
    floor: float = recipe(0.0, "Share of the learning rate that is left at the end.", ge=0, le=1)
    decay_ratio: float = recipe(0.2, "Share of the steps in which `wsd` falls, after being constant.", gt=0, le=1)


class Validation(Part):
    """How often the validation rows are asked during a training, and what follows from the answers."""

    every_steps: int = recipe(100, "Steps between two validations.", gt=0)
    patience: int | None = recipe(None, "Stop after so many validations without a better loss; none given: never.", gt=0)
    keep_best: bool = recipe(True, "Keep the weights of the best validation, not the last ones.")


class Training(Part):
    """How a model is trained, as a spec's training says it."""

    method: Method = recipe(description="Which weights are trained.")
    global_batch: GlobalBatch = recipe(GlobalBatch(), "What one optimizer step learns from.")
    learning_rate: float = recipe(2e-4, "Peak learning rate.", gt=0)
    schedule: Annotated[Schedule, named] = recipe(Schedule(), "How the learning rate moves.")
    optimizer: Optimizer = recipe(AdamW(), "How gradients become updates.")
    betas: tuple[float, float] = recipe((0.9, 0.999), "AdamW's decay rates of the two moments.")
    weight_decay: float = recipe(0.0, "Decoupled weight decay of matrices.", ge=0)
    max_grad_norm: float = recipe(1.0, "The gradient is scaled down to this norm.", gt=0)
    precision: Literal["float32", "tf32", "bfloat16", "float16"] = recipe("float32", "In what numbers matrices are multiplied.")
    neftune_noise_alpha: float | None = recipe(
        None, "Size of the noise that is added to embeddings while training (Jain et al., 2023, arXiv:2310.05914).", gt=0
    )
    validation: Validation | None = recipe(
        None, "Validations during the training; none given: one after it, and the last weights are kept."
    )
    batching: Batching = resource(
        Padded(), "How rows lie in micro-batches; `packed` also orders the mixture by bins, and that is part of the mixture's recipe."
    )


class Checkpoints(Part):
    """When the state of a training is written to the disk."""

    every_minutes: float = resource(10.0, "Minutes between two checkpoints.", gt=0)
    every_steps: int | None = resource(None, "Steps between two checkpoints, beside the minutes.", gt=0)


class Parameters(Training):
    """How a model is trained, and on what; the rows are the mixture's matter."""

    seed: int = recipe(0, "Seed of dropout and of the adapter's first weights.", ge=0, lt=2**63)
    micro_batch: int | None = resource(
        None, "Rows that a device computes at once; none given: as many as fit, found by halving the whole share.", gt=0
    )
    threads: int | None = resource(None, "CPU threads of each process; none given: all cores, shared by the processes.", gt=0)
    devices: int = resource(1, "Devices of each host to train on; without accelerators, processes.", gt=0)
    nodes: int = resource(1, "Hosts to train on.", gt=0)
    zero: Zero = resource(Zero(), "What the devices share.")
    checkpoints: Checkpoints = resource(Checkpoints(), "When the state of a training is written to the disk.")
    report_to: tuple[Literal["tensorboard", "wandb", "mlflow"], ...] = resource((), "Where the live metrics go beside DVCLive.")
    stop_on_divergence: bool = resource(True, "Stop a training whose loss has risen far above where it began.")
    stop_without_progress: int = resource(1000, "Stop a training that has learnt nothing so many steps after the warm-up; 0: never.", ge=0)
    attention: Attention = resource("auto", "Implementation of attention.")
    gradient_checkpointing: bool = resource(False, "Keep only the inputs of layers, and compute each again in the backward pass.")
    torch_compile: bool = resource(False, "Compile the model before training.")
    kernels: Literal["own", "liger"] = resource("own", "Kernels of norms and feed-forward layers.")


KIND = Kind(
    "train",
    "Train a model or an adapter on a mixture.",
    Parameters,
    environment=("numpy", "safetensors", "torch", "transformers"),
    slot="device",
    plots=True,
)
