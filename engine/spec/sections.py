"""The sections of a spec; those that configure one kind alone are that kind's own parameter models."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Discriminator, Field, Tag, model_validator
from pydantic_core import PydanticCustomError

from engine.core.part import Name, Part, recipe, resource
from engine.spec.judge import Judge
from engine.spec.sweep import MOST_POINTS
from stages import benchmark, evaluate, generate, merge, predict, tokenize, train
from stages.evaluate.metrics import EosRate, ExactMatch, Length, Metric, Rouge
from stages.initialize import Architecture, Tokenizer
from stages.initialize.tokenizers import Bpe
from stages.mix.samplers import Proportional, Sampler, Weights
from stages.models.attention import Attention
from stages.process.numerics import Numerics
from stages.train.zero import Zero, as_zero


class ExperimentSection(Part):
    """Who this experiment is."""

    name: Name = recipe(description="Name of the experiment; it ends the names of its steps.")
    seed: int = recipe(0, "Seed of the order of the rows, of dropout and of the adapter's first weights.", ge=0, lt=2**63)
    description: str = recipe("", "One line for people.")


def _with_config(files: tuple[str, ...]) -> tuple[str, ...]:
    """FILES, where the configuration, which names the end-of-sequence token, is among them."""
    if "tokenizer_config.json" not in files:
        raise PydanticCustomError("no_tokenizer_config", "tokenizer_config.json must be among them: it names the end-of-sequence token")
    return files


class ScratchModel(Part):
    """A model that is created here, with random weights and a tokenizer of its own."""

    name: Name = recipe(description="Name of the model; it ends the names of the token steps.")
    architecture: Architecture = recipe(description="The kind of model, with its sizes.")
    tokenizer: Tokenizer = recipe(Bpe(), "The tokenizer to be trained.")
    seed: int = recipe(0, "Seed of the random weights.", ge=0, lt=2**63)


TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")

TokenizerFiles = Annotated[tuple[Annotated[str, Field(pattern=r"^[\w.-]+$")], ...], Field(min_length=1), AfterValidator(_with_config)]

_TOKENIZER_FILES = (
    "The files of its tokenizer. One with a chat template of its own in `chat_template.jinja` names that too; "
    "one that is written in Python has no `tokenizer.json`, but files that its class reads."
)


class LocalModel(Part):
    """A model that lies on this machine, in the layout of `from_pretrained`."""

    path: str = recipe(description="The model's folder, relative to the workspace, or absolute.", min_length=1)
    name: Name | None = recipe(None, "Name of the model; none given: the folder's own.")
    tokenizer_files: TokenizerFiles = recipe(TOKENIZER_FILES, _TOKENIZER_FILES)


class HubModel(Part):
    """A model of the Hugging Face hub, pinned to a revision."""

    id: str = recipe(description="The model's id, such as `tiiuae/falcon-7b`.", pattern=r"^[\w.-]+(/[\w.-]+)?$")
    revision: str = recipe(description="Commit of the model's repository: 40 hex digits.", pattern=r"^[0-9a-f]{40}$")
    name: Name | None = recipe(None, "Name of the model; none given: the last part of the id.")
    tokenizer_files: TokenizerFiles = recipe(TOKENIZER_FILES, _TOKENIZER_FILES)


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


class Split(Part):
    """The held-out shares, what keeps rows together, and splits that the source itself makes."""

    validation: float | None = recipe(
        None, "Share of the rows (about) held out to watch the training; none given: 0.05, or 0 where a column says the split.", ge=0, lt=1
    )
    test: float | None = recipe(
        None,
        "Share of the rows (about) held out to evaluate on; none given: 0.1, or 0 where a column or a source gives the test rows.",
        ge=0,
        lt=1,
    )
    max_validation: int | None = recipe(None, "At most so many validation rows, chosen by content; the others are used for nothing.", gt=0)
    max_test: int | None = recipe(None, "At most so many test rows, chosen by content; the others are used for nothing.", gt=0)
    group_by: str | None = recipe(None, "Column whose equal values keep rows together in one split; none given: rows that ask the same.")
    column: str | None = recipe(None, "Column in which the source itself says `train`, `validation` or `test`.")
    test_source: generate.Source | None = recipe(None, "A source whose rows are the test rows.")
    seed: int = recipe(0, "Another seed gives other splits.", ge=0, lt=2**63)

    @model_validator(mode="after")
    def _some_left(self) -> Self:
        if sum(self.shares) >= 1:
            raise PydanticCustomError("nothing_left", "validation and test take every row: nothing is left to train on", {"at": ("test",)})
        return self

    @property
    def shares(self) -> tuple[float, float]:
        """The shares of validation and test that are taken by hash."""
        validation = (0.0 if self.column else 0.05) if self.validation is None else self.validation
        test = (0.0 if self.fixed else 0.1) if self.test is None else self.test
        return validation, test

    @property
    def fixed(self) -> bool:
        """Whether the sources say of rows which split they belong to."""
        return self.column is not None or self.test_source is not None


class Task(generate.Rows):
    """One thing that the model learns: rows of a source, prompts over them, and who answers."""

    split: Split = recipe(Split(), "The held-out shares.")
    max_new_tokens: int = recipe(64, "An answer is cut off after this many tokens.", gt=0)


class Tokenization(tokenize.Labels):
    """How rows become tokens and labels."""

    encoder_decoder: bool | None = recipe(
        None,
        "Inputs and labels of their own, as T5 wants them; max_length then bounds the input. None given: what the model's configuration "
        "says; a model of the hub must be told of.",
    )

    name: Name | None = recipe(None, "Ends the names of the token steps, where a workspace tokenizes one task in several ways.")
    special_tokens: tuple[Annotated[str, Field(min_length=1)], ...] = recipe(
        (), "Tokens to add to the tokenizer, such as role markers; their embeddings are learned, and saved with the adapter."
    )


class Mixture(Part):
    """Which tasks are trained on, and in which shares."""

    tasks: tuple[Name, ...] = recipe(description="The tasks to train on.", min_length=1)
    sampler: Sampler = recipe(Proportional(), "How many rows each task gives.")
    total_rows: int | None = recipe(
        None, "Rows to train on in all, in place of training.epochs or steps; bins where batching is packed.", gt=0
    )
    total_tokens: int | None = recipe(None, "Tokens to train on in all, in place of training.epochs or steps: as many rows as fit.", gt=0)

    @model_validator(mode="after")
    def _each_once(self) -> Self:
        if len(set(self.tasks)) != len(self.tasks):
            raise PydanticCustomError(
                "named_twice", "a task is named twice; give it a larger share through the sampler", {"at": ("tasks",)}
            )
        if unknown := sorted(self.sampler.named_tasks() - set(self.tasks)):
            message = "the sampler names '{task}', which is no task of this mixture"
            raise PydanticCustomError("sampler_task", message, {"task": unknown[0], "at": ("sampler",)})
        if isinstance(self.sampler, Weights) and set(self.sampler.weights) != set(self.tasks):
            wanted = ", ".join(self.tasks)
            raise PydanticCustomError(
                "weights", "weights are needed for exactly these tasks: {wanted}", {"wanted": wanted, "at": ("sampler", "weights")}
            )
        return self

    @model_validator(mode="after")
    def _one_length(self) -> Self:
        if self.total_rows and self.total_tokens:
            raise PydanticCustomError("two_lengths", "give total_rows or total_tokens, not both", {"at": ("total_tokens",)})
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


class Evaluation(predict.Asking):
    """What the trained model is asked, what is measured, and with whom it is compared."""

    tasks: tuple[Name, ...] = recipe((), "The tasks whose test rows are asked; none given: those of the mixture.")
    held_out: tuple[Name, ...] = recipe(
        (), "The tasks whose test rows are only read: how likely the model finds them, in loss and perplexity."
    )
    metrics: tuple[Metric, ...] = recipe((ExactMatch(), Rouge(), EosRate(), Length()), "What is measured on the answers.", min_length=1)
    split: Literal["test", "validation"] = recipe(
        "test", "The rows that are asked: `validation` where points of a sweep are to be chosen, which must not be done by test rows."
    )
    compare: tuple[Name, ...] = recipe(
        (), "Other experiments whose models answer the same rows; `base` is the model that this experiment starts from."
    )
    statistics: evaluate.Statistics = recipe(evaluate.Statistics(), "How sure the numbers are.")
    judge: Judge | None = recipe(None, "A chat model that gives every answer scores.")

    @model_validator(mode="after")
    def _asked_or_read(self) -> Self:
        for name in ("compare", "tasks", "held_out"):
            given = getattr(self, name)
            if len(set(given)) != len(given):
                raise PydanticCustomError("named_twice", "the same name stands here twice", {"at": (name,)})
        if both := sorted(set(self.tasks) & set(self.held_out)):
            raise PydanticCustomError(
                "asked_and_read", "task {task} is asked, which measures it already", {"task": both[0], "at": ("held_out",)}
            )
        return self


class Benchmarks(benchmark.Benchmarks):
    """Tasks of lm-evaluation-harness that the trained model takes."""

    folder: str | None = recipe(None, "A folder with definitions of your own (YAML) and their data.", min_length=1)


class Merge(merge.Merging):
    """Adapters that become part of the weights of their base."""


class Sweep(Part):
    """Values of fields of this spec; every combination is a point, which is built as an experiment of its own."""

    grid: dict[str, Any] = recipe({}, "Fields as in the spec, each with an array of values: `training.learning_rate = [1e-4, 1e-3]`.")
    points: tuple[dict[str, Any], ...] = recipe(
        (), "Points listed one by one: each a table of fields and their values, with a `name` where its values do not name it well."
    )
    max_points: int = recipe(MOST_POINTS, "More points than this are taken for a mistake.", gt=0)


class Resources(Part):
    """How the steps run; nothing here reruns a step, and results differ by rounding at most, by default not for another number of cores."""

    numerics: Numerics = resource(
        "portable",
        "portable: the same bits on every x86-64 processor with AVX2 of one maker, whatever its cores; native: whatever is fastest here.",
    )
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
    stop_without_progress: int = resource(1000, "Stop a training that has learnt nothing so many steps after the warm-up; 0: never.", ge=0)
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
    benchmarks: Benchmarks | None = recipe(None, "Which published benchmarks, or tasks of one's own, the trained model takes.")
    merge: Merge | None = recipe(None, "Adapters that become part of the weights of their base.")
    sweep: Sweep | Literal[False] = recipe(False, "Fields with lists of values; false takes back the sweep of a spec that is extended.")
    resources: Resources = resource(Resources(), "How the steps run.")

    @model_validator(mode="after")
    def _prompts_steer_on_purpose(self) -> Self:
        """Control tokens that a spec itself writes into prompts are meant: that they would become text must be said, or denied."""
        tokens = self.tokenization.special_tokens
        if "control_tokens_in_text" in self.tokenization.model_fields_set:
            return self
        for name, task in self.tasks.items():
            written = [(("prompts", index), prompt) for index, prompt in enumerate(task.prompts)] + [(("system",), task.system)]
            for place, template in written:
                if isinstance(template, str) and (token := next((one for one in tokens if one in template), None)):
                    message = (
                        "this prompt writes the special token {token}, which is encoded as text here; put it into tokenization.format, "
                        'or set tokenization.control_tokens_in_text = "control" (or "text", if text is meant)'
                    )
                    raise PydanticCustomError("control_tokens", message, {"token": token, "at": ("tasks", name, *place)})
        return self

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

    @model_validator(mode="after")
    def _one_length(self) -> Self:
        mixture, training = self.mixture, self.training
        if (mixture.total_rows or mixture.total_tokens) and (training.epochs or training.steps):
            name = "total_rows" if mixture.total_rows else "total_tokens"
            message = "mixture.{name} says how long the training is: leave out training.epochs and steps"
            raise PydanticCustomError("two_lengths", message, {"name": name, "at": ("mixture", name)})
        return self
