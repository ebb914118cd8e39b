"""train: train a model or an adapter on a mixture."""

from typing import Annotated, Literal

from engine.core.part import Kind, Part, named, recipe, resource
from stages.models.attention import Attention
from stages.train.batching import Batching, Padded
from stages.train.methods import Method
from stages.train.objectives import Objective
from stages.train.objectives.supervised import Supervised
from stages.train.optimizers import Optimizer
from stages.train.optimizers.adamw import AdamW
from stages.train.zero import Zero


class GlobalBatch(Part):
    """The global batch: rows per optimizer step, over all devices and accumulation steps."""

    rows: int = recipe(32, "Rows per optimizer step; bins if batching is packed; pairs if the objective is on pairs of answers.", gt=0)
    tokens: int | None = recipe(None, "Instead of rows: as many rows as fit in this many tokens, at least one.", gt=0)


class Schedule(Part):
    """The learning rate schedule."""

    kind: Literal["constant", "linear", "cosine", "inverse_sqrt", "wsd"] = recipe("cosine", "Shape of the schedule after the warm-up.")
    warmup_ratio: float = recipe(0.03, "Share of the steps for the linear warm-up from zero.", ge=0, le=1)
    floor: float = recipe(0.0, "Final learning rate, as a share of the peak.", ge=0, le=1)
    decay_ratio: float = recipe(0.2, "Share of the steps for the decay of `wsd`, after the constant phase.", gt=0, le=1)


class Validation(Part):
    """Validations during training, early stopping, and the choice of the best weights."""

    every_steps: int = recipe(100, "Steps between validations.", gt=0)
    patience: int | None = recipe(None, "Stop early after this many validations without improvement; if unset, never.", gt=0)
    keep_best: bool = recipe(True, "Keep the weights of the best validation instead of the last ones.")


class Training(Part):
    """How a model is trained, as written in a spec."""

    method: Method = recipe(description="Which weights are trained.")
    objective: Objective = recipe(
        Supervised(),
        "What is minimised: the cross entropy of supervised tokens, also mixed with what a teacher says, or a loss on pairs of answers.",
    )
    global_batch: GlobalBatch = recipe(GlobalBatch(), "Size of the global batch.")
    learning_rate: float = recipe(2e-4, "Peak learning rate.", gt=0)
    schedule: Annotated[Schedule, named] = recipe(Schedule(), "Learning rate schedule.")
    optimizer: Optimizer = recipe(AdamW(), "Optimizer.")
    betas: tuple[float, float] = recipe((0.9, 0.999), "Decay rates of AdamW's first and second moment.")
    weight_decay: float = recipe(0.0, "Decoupled weight decay, for matrices only.", ge=0)
    max_grad_norm: float = recipe(1.0, "Maximum norm of the gradient (clipping).", gt=0)
    precision: Literal["float32", "tf32", "bfloat16", "float16"] = recipe("float32", "Precision of matrix multiplications.")
    neftune_noise_alpha: float | None = recipe(
        None, "NEFTune: scale of the noise on embeddings during training (Jain et al., 2023, arXiv:2310.05914).", gt=0
    )
    validation: Validation | None = recipe(None, "Validations during training; if unset, one at the end, and the last weights are kept.")
    batching: Batching = resource(
        Padded(), "Layout of rows in micro-batches; `packed` also packs the mixture into bins, as part of the mixture's recipe."
    )


class Checkpoints(Part):
    """When checkpoints are written."""

    every_minutes: float = resource(10.0, "Minutes between checkpoints.", gt=0)
    every_steps: int | None = resource(None, "Steps between checkpoints, in addition to every_minutes.", gt=0)


class Parameters(Training):
    """How a model is trained, with which resources; the mixture decides the rows."""

    seed: int = recipe(0, "Seed of dropout and of the adapter's initial weights.", ge=0, lt=2**63)
    micro_batch: int | None = resource(None, "Rows per device and forward pass; if unset, as many as fit, found by repeated halving.", gt=0)
    threads: int | None = resource(None, "CPU threads per process; if unset, all cores, shared by the processes.", gt=0)
    devices: int = resource(1, "Devices per host; without accelerators, processes.", gt=0)
    nodes: int = resource(1, "Number of hosts.", gt=0)
    zero: Zero = resource(Zero(), "ZeRO: what the devices partition.")
    checkpoints: Checkpoints = resource(Checkpoints(), "When checkpoints are written.")
    report_to: tuple[Literal["tensorboard", "wandb", "mlflow"], ...] = resource((), "Destinations of live metrics, in addition to DVCLive.")
    stop_on_divergence: bool = resource(
        True, "Stop if the loss rises far above its initial value, or if the chosen answers of pairs are unlearnt."
    )
    stop_without_progress: int = resource(1000, "Stop if the loss has not fallen this many steps after the warm-up; 0: never.", ge=0)
    attention: Attention = resource("auto", "Attention implementation.")
    gradient_checkpointing: bool = resource(False, "Keep only the inputs of layers, and recompute activations in the backward pass.")
    torch_compile: bool = resource(False, "Compile the model with torch.compile.")
    kernels: Literal["own", "liger"] = resource("own", "Kernels of norms and feed-forward layers.")


KIND = Kind(
    "train",
    "Train a model or an adapter on a mixture.",
    Parameters,
    environment=("numpy", "safetensors", "torch", "transformers"),
    slot="device",
    plots=True,
)
