"""The sections of a spec; those that configure one kind alone are that kind's own parameter models."""

from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import Discriminator, Field, Tag, model_validator
from pydantic_core import PydanticCustomError

from engine.part import Name, Part, recipe, resource
from stages import generate, split, tokenize, train
from stages.common.attention import Attention
from stages.evaluate.metrics import EosRate, ExactMatch, Length, Metric, Rouge
from stages.initialize import Architecture, Tokenizer
from stages.initialize.tokenizers import Bpe
from stages.mix.samplers import Proportional, Sampler, Weights
from stages.train.zero import Zero, as_zero


class ExperimentSection(Part):
    """Who this experiment is."""

    name: Name = recipe(description="Name of the experiment; it ends the names of its steps.")
    seed: int = recipe(0, "Seed of the order of the rows, of dropout and of the adapter's first weights.", ge=0, lt=2**63)
    description: str = recipe("", "One line for people.")


class ScratchModel(Part):
    """A model that is created here, with random weights and a tokenizer of its own."""

    name: Name = recipe(description="Name of the model; it ends the names of the token steps.")
    architecture: Architecture = recipe(description="The kind of model, with its sizes.")
    tokenizer: Tokenizer = recipe(Bpe(), "The tokenizer to be trained.")
    seed: int = recipe(0, "Seed of the random weights.", ge=0, lt=2**63)


class LocalModel(Part):
    """A model that lies on this machine, in the layout of `from_pretrained`."""

    path: str = recipe(description="The model's folder, relative to the workspace, or absolute.", min_length=1)
    name: Name | None = recipe(None, "Name of the model; none given: the folder's own.")


class HubModel(Part):
    """A model of the Hugging Face hub, pinned to a revision."""

    id: str = recipe(description="The model's id, such as `tiiuae/falcon-7b`.", pattern=r"^[\w.-]+(/[\w.-]+)?$")
    revision: str = recipe(description="Commit of the model's repository: 40 hex digits.", pattern=r"^[0-9a-f]{40}$")
    name: Name | None = recipe(None, "Name of the model; none given: the last part of the id.")


class TrainedModel(Part):
    """The model that another experiment of this workspace trains."""

    experiment: Name = recipe(description="Name of the experiment whose model is trained further.")


_MODELS: dict[str, type[Part]] = {"architecture": ScratchModel, "path": LocalModel, "id": HubModel, "experiment": TrainedModel}


def _which_model(value: object) -> str | None:
    """The key that tells the four sorts of models apart."""
    if isinstance(value, Mapping):
        return next((key for key in _MODELS if key in value), None)
    return next((key for key, model in _MODELS.items() if isinstance(value, model)), None)


Model = Annotated[
    Annotated[ScratchModel, Tag("architecture")]
    | Annotated[LocalModel, Tag("path")]
    | Annotated[HubModel, Tag("id")]
    | Annotated[TrainedModel, Tag("experiment")],
    Discriminator(
        _which_model,
        custom_error_type="which_model",
        custom_error_message="a model needs one of: architecture (from scratch), path, id (with revision), experiment",
    ),
]


class Split(split.Parameters):
    """The held-out shares, and what keeps rows together."""

    group_by: str | None = recipe(None, "Column whose equal values keep rows together in one split.")

    @model_validator(mode="after")
    def _some_left(self) -> Self:
        if self.validation + self.test >= 1:
            raise PydanticCustomError("nothing_left", "validation and test take every row: nothing is left to train on", {"at": ("test",)})
        return self


class Task(generate.Rows):
    """One thing that the model learns: rows of a source, prompts over them, and who answers."""

    split: Split = recipe(Split(), "The held-out shares.")
    max_new_tokens: int = recipe(64, "An answer is cut off after this many tokens.", gt=0)


class Tokenization(tokenize.Parameters):
    """How rows become tokens and labels."""

    name: Name | None = recipe(None, "Ends the names of the token steps, where a workspace tokenizes one task in several ways.")


class Mixture(Part):
    """Which tasks are trained on, and in which shares."""

    tasks: tuple[Name, ...] = recipe(description="The tasks to train on.", min_length=1)
    sampler: Sampler = recipe(Proportional(), "How many rows each task gives.")

    @model_validator(mode="after")
    def _each_once(self) -> Self:
        if len(set(self.tasks)) != len(self.tasks):
            raise PydanticCustomError(
                "named_twice", "a task is named twice; give it a larger share through the sampler", {"at": ("tasks",)}
            )
        if isinstance(self.sampler, Weights) and set(self.sampler.weights) != set(self.tasks):
            wanted = ", ".join(self.tasks)
            raise PydanticCustomError(
                "weights", "weights are needed for exactly these tasks: {wanted}", {"wanted": wanted, "at": ("sampler", "weights")}
            )
        return self


class Training(train.Training):
    """How the model is trained, and for how long."""

    epochs: int | None = recipe(None, "How often the mixture is gone through; neither epochs nor steps given: once.", gt=0)
    steps: int | None = recipe(None, "Number of optimizer steps, in place of epochs.", gt=0)

    @model_validator(mode="after")
    def _one_length(self) -> Self:
        if self.epochs and self.steps:
            raise PydanticCustomError("two_lengths", "give epochs or steps, not both", {"at": ("steps",)})
        return self

    @model_validator(mode="after")
    def _betas_are_used(self) -> Self:
        if "betas" in self.model_fields_set and not self.optimizer.has_betas:
            raise PydanticCustomError("betas", "{kind} has no betas: leave them out", {"kind": self.optimizer.kind, "at": ("betas",)})
        return self

    @model_validator(mode="after")
    def _one_global_batch(self) -> Self:
        batch = self.global_batch
        if batch.tokens and "rows" in batch.model_fields_set:
            raise PydanticCustomError("two_batches", "give rows or tokens, not both", {"at": ("global_batch", "tokens")})
        if batch.tokens and self.steps:
            message = "a global batch of tokens has no fixed number of rows: give epochs, not steps"
            raise PydanticCustomError("steps_of_tokens", message, {"at": ("steps",)})
        return self


class Evaluation(Part):
    """What the trained model is asked, and what is measured."""

    tasks: tuple[Name, ...] = recipe((), "The tasks whose test rows are asked; none given: those of the mixture.")
    metrics: tuple[Metric, ...] = recipe((ExactMatch(), Rouge(), EosRate(), Length()), "What is measured on the answers.", min_length=1)
    rows: int | None = recipe(None, "Ask only this many rows of each test split (chosen by content hash).", gt=0)


class Resources(Part):
    """How the steps run; nothing here reruns a step; results differ by rounding at most, and are equal to the byte for equal threads."""

    threads: int | None = resource(None, "CPU threads of training and evaluation; none given: all cores.", gt=0)
    devices: int = resource(1, "Devices of each host that a training uses; where there is no accelerator, processes.", gt=0)
    nodes: int = resource(1, "Hosts that a training uses.", gt=0)
    zero: Literal[0, 1, 2, 3] | Zero = resource(0, "What the devices of a training share: a ZeRO stage, or a table with offloading too.")
    micro_batch: Literal["auto"] | Annotated[int, Field(gt=0)] = resource(
        "auto", "Rows that a device trains on at once; auto: as many as fit, halved where memory runs out."
    )
    checkpoints: train.Checkpoints = resource(train.Checkpoints(), "When the state of a training is written to the disk.")
    report_to: tuple[Literal["tensorboard", "wandb", "mlflow"], ...] = resource((), "Where live metrics go beside DVCLive's files.")
    stop_on_divergence: bool = resource(True, "Stop a training whose loss has risen far above where it began.")
    evaluation_batch: int = resource(64, "Rows that are generated at once.", gt=0)
    attention: Attention = resource("auto", "Implementation of attention in trainings; one that is not here is replaced, and that is said.")
    gradient_checkpointing: bool = resource(False, "Less memory for a fifth more time: each layer is computed again in the backward pass.")
    torch_compile: bool = resource(False, "Compile the model before training: worth it for long trainings.")
    kernels: Literal["own", "liger"] = resource("own", "Fused kernels of norms and feed-forward layers, where liger-kernel has them.")
    device_memory: float | None = resource(None, "Memory of one device in GB; the plan warns when a training cannot fit.", gt=0)


class Experiment(Part):
    """One spec: data, tokens, mixture, training and evaluation of one model."""

    experiment: ExperimentSection = recipe(description="Name and seed.")
    model: Model = recipe(description="The model that is trained.")
    tasks: dict[Name, Task] = recipe(description="The tasks, by name.", min_length=1)
    tokenization: Tokenization = recipe(Tokenization(), "How rows become tokens and labels.")
    mixture: Mixture = recipe(description="Which tasks are trained on.")
    training: Training = recipe(description="How the model is trained.")
    evaluation: Evaluation = recipe(Evaluation(), "What the trained model is asked.")
    resources: Resources = resource(Resources(), "How the steps run.")

    @model_validator(mode="after")
    def _zero_fits(self) -> Self:
        training = self.training
        if not as_zero(self.resources.zero).stage:
            return self
        if training.optimizer.kind != "adamw":
            message = "{kind} cannot be shared by devices: its states do not lie number by number beside the weights; take adamw"
            raise PydanticCustomError("zero", message, {"kind": training.optimizer.kind, "at": ("training", "optimizer")})
        if training.precision == "float16":
            message = "ZeRO runs without float16's scaling of the loss: take bfloat16, which needs none"
            raise PydanticCustomError("zero", message, {"at": ("training", "precision")})
        return self
