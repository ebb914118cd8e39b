"""A spec and its sections; a section that configures a single kind is that kind's parameter model."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from engine.core.errors import Location
from engine.core.part import Name, Part, recipe, resource
from engine.spec.judge import Judge
from engine.spec.models import Model
from engine.spec.pairs import Pairs
from engine.spec.positions import Key
from engine.spec.sweep import MOST_POINTS, Point
from engine.spec.tree import Node
from engine.spec.versus import Versus
from stages import benchmark, evaluate, export, generate, merge, predict, tokenize, train
from stages.evaluate.metrics import EosRate, ExactMatch, Length, Metric, Rouge
from stages.generate.sources.best_of import BestOf
from stages.generate.sources.pairs import Pairs as PairRows
from stages.mix.samplers import Proportional, Sampler, Weights
from stages.models.attention import Attention
from stages.process.numerics import Numerics
from stages.train.zero import Zero, as_zero


class ExperimentSection(Part):
    """Name, seed and description of the experiment."""

    name: Name = recipe(description="Name of the experiment; suffix of the names of its steps.")
    seed: int = recipe(0, "Seed of row order, dropout and adapter initialization.", ge=0, lt=2**63)
    description: str = recipe("", "One line of free text.")


class Split(Part):
    """How rows are divided into train, validation and test: by fractions and groups, or by the source."""

    validation: float | None = recipe(
        None, "Approximate fraction of the rows held out for validation; default: 0.05, or 0 if `column` is set.", ge=0, lt=1
    )
    test: float | None = recipe(
        None,
        "Approximate fraction of the rows held out for testing; default: 0.1, or 0 if `column` or `test_source` is set.",
        ge=0,
        lt=1,
    )
    max_validation: int | None = recipe(
        None, "Maximum number of validation rows, chosen by content; the remaining ones are not used.", gt=0
    )
    max_test: int | None = recipe(None, "Maximum number of test rows, chosen by content; the remaining ones are not used.", gt=0)
    group_by: str | None = recipe(
        None, "Column whose equal values keep rows together in one split; default: rows with the same prompt stay together."
    )
    column: str | None = recipe(None, "Column of the source that contains `train`, `validation` or `test`.")
    test_source: generate.Source | None = recipe(None, "Source of the test rows.")
    seed: int = recipe(0, "Seed of the assignment of rows to splits.", ge=0, lt=2**63)

    @model_validator(mode="after")
    def _some_left(self) -> Self:
        if sum(self.shares) >= 1:
            raise PydanticCustomError(
                "nothing_left",
                "the fractions of validation and test leave no rows for training: they must sum to less than 1",
                {"at": ("test",)},
            )
        return self

    @property
    def shares(self) -> tuple[float, float]:
        """The fractions of rows that are held out by hash for validation and test."""
        validation = (0.0 if self.column else 0.05) if self.validation is None else self.validation
        test = (0.0 if self.fixed else 0.1) if self.test is None else self.test
        return validation, test

    @property
    def fixed(self) -> bool:
        """Whether the source determines the split of rows."""
        return self.column is not None or self.test_source is not None


_OF_ANY_SPLIT = {"max_validation", "max_test", "seed"}
"""What a split may set where the source assigns rows to splits."""


class Task(generate.Rows):
    """One task that the model learns: rows of a source, prompts built from them, and the source of their completions."""

    split: Split = recipe(Split(), "How rows are divided into train, validation and test.")
    max_new_tokens: int = recipe(64, "Maximum number of tokens generated for a prediction.", gt=0)

    @model_validator(mode="after")
    def _divided_once(self) -> Self:
        if self.source.split_column and (given := sorted(self.split.model_fields_set - _OF_ANY_SPLIT)):
            message = "source {kind} keeps every row in the split of its prompt: remove split.{field}"
            raise PydanticCustomError("divided_twice", message, {"kind": self.source.kind, "field": given[0], "at": ("split", given[0])})
        return self

    @property
    def division(self) -> Split:
        """How rows are divided: as `split` says, or by the source itself."""
        column = self.source.split_column
        return self.split.model_copy(update={"column": column}) if column else self.split


class Tokenization(tokenize.Labels):
    """How rows become tokens and labels."""

    encoder_decoder: bool | None = recipe(
        None,
        "Tokenize prompts as encoder inputs and completions as decoder labels, as T5 requires; max_length then limits the encoder input. "
        "Default: the model's configuration decides; for a model on the hub, which is read only when it is fetched, set it.",
    )

    name: Name | None = recipe(None, "Suffix of the names of the tokenize steps; needed if a workspace tokenizes one task in several ways.")
    special_tokens: tuple[Annotated[str, Field(min_length=1)], ...] = recipe(
        (), "Tokens to add to the tokenizer, such as role markers; their embeddings are trained and saved with the adapter."
    )


class Mixture(Part):
    """The tasks to train on and their proportions."""

    tasks: tuple[Name, ...] = recipe(description="The tasks to train on.", min_length=1)
    sampler: Sampler = recipe(Proportional(), "How many rows of each task are used per epoch.")
    total_rows: int | None = recipe(
        None, "Total number of rows to train on (of bins, if batching is packed), in place of training.epochs or training.steps.", gt=0
    )
    total_tokens: int | None = recipe(
        None, "Total number of tokens to train on, in place of training.epochs or training.steps: as many rows as fit.", gt=0
    )

    @model_validator(mode="after")
    def _each_once(self) -> Self:
        if len(set(self.tasks)) != len(self.tasks):
            raise PydanticCustomError(
                "named_twice", "a task is listed twice; to use more of its rows, change the sampler", {"at": ("tasks",)}
            )
        if unknown := sorted(self.sampler.named_tasks() - set(self.tasks)):
            message = "the sampler names '{task}', which is not a task of this mixture"
            raise PydanticCustomError("sampler_task", message, {"task": unknown[0], "at": ("sampler",)})
        if isinstance(self.sampler, Weights) and set(self.sampler.weights) != set(self.tasks):
            wanted = ", ".join(self.tasks)
            raise PydanticCustomError(
                "weights", "weights must be set for exactly these tasks: {wanted}", {"wanted": wanted, "at": ("sampler", "weights")}
            )
        return self

    @model_validator(mode="after")
    def _one_length(self) -> Self:
        if self.total_rows and self.total_tokens:
            raise PydanticCustomError("two_lengths", "set total_rows or total_tokens, not both", {"at": ("total_tokens",)})
        return self


class Training(train.Training):
    """How the model is trained, and for how long."""

    epochs: int | None = recipe(None, "Number of passes over the mixture; default: 1, unless steps is set.", gt=0)
    steps: int | None = recipe(None, "Number of optimizer steps, in place of epochs.", gt=0)

    @model_validator(mode="after")
    def _one_length(self) -> Self:
        if self.epochs and self.steps:
            raise PydanticCustomError("two_lengths", "set epochs or steps, not both", {"at": ("steps",)})
        return self

    @model_validator(mode="after")
    def _betas_are_used(self) -> Self:
        if "betas" in self.model_fields_set and not self.optimizer.has_betas:
            raise PydanticCustomError(
                "betas", "optimizer {kind} has no betas: remove them", {"kind": self.optimizer.kind, "at": ("betas",)}
            )
        return self

    @model_validator(mode="after")
    def _one_global_batch(self) -> Self:
        batch = self.global_batch
        if batch.tokens and "rows" in batch.model_fields_set:
            raise PydanticCustomError("two_batches", "set rows or tokens, not both", {"at": ("global_batch", "tokens")})
        if batch.tokens and self.steps:
            message = "with global_batch.tokens the number of rows per step varies: set epochs, not steps"
            raise PydanticCustomError("steps_of_tokens", message, {"at": ("steps",)})
        return self


class Evaluation(predict.Asking):
    """The tasks on which the trained model is evaluated, the metrics, and the models that it is compared with."""

    tasks: tuple[Name, ...] = recipe(
        (),
        "The tasks to evaluate on; default: those of the mixture, for one made of answers the task that was answered; without a "
        "training, all tasks that are not in `held_out`.",
    )
    held_out: tuple[Name, ...] = recipe(
        (), "Tasks whose rows are scored by likelihood (loss and perplexity), without generating predictions."
    )
    metrics: tuple[Metric, ...] = recipe((ExactMatch(), Rouge(), EosRate(), Length()), "The metrics of the predictions.", min_length=1)
    split: Literal["test", "validation"] = recipe(
        "test", "The rows to evaluate on; use `validation` to choose among the points of a sweep, which test rows must not decide."
    )
    compare: tuple[Name, ...] = recipe(
        (), "Experiments to compare with, evaluated on the same rows; `base` is the model that this experiment starts from."
    )
    statistics: evaluate.Statistics = recipe(evaluate.Statistics(), "Confidence intervals and significance tests.")
    judge: Judge | None = recipe(None, "A chat model that scores every prediction.")
    versus: Versus | None = recipe(
        None, "A chat model that says, row by row, whose answer is better: this model's or that of a model in `compare`."
    )

    @model_validator(mode="after")
    def _somebody_to_compare(self) -> Self:
        if self.versus and not self.compare:
            message = 'versus compares with the models in evaluation.compare, which names none: set compare = ["base"]'
            raise PydanticCustomError("nobody", message, {"at": ("versus",)})
        return self

    @model_validator(mode="after")
    def _each_task_once(self) -> Self:
        for name in ("compare", "tasks", "held_out"):
            given = getattr(self, name)
            if len(set(given)) != len(given):
                raise PydanticCustomError("named_twice", "a name is listed twice: remove one of them", {"at": (name,)})
        if both := sorted(set(self.tasks) & set(self.held_out)):
            raise PydanticCustomError(
                "asked_and_read", "task '{task}' is in evaluation.tasks already: remove it here", {"task": both[0], "at": ("held_out",)}
            )
        return self


class Benchmarks(benchmark.Benchmarks):
    """Tasks of lm-evaluation-harness on which the trained model is evaluated."""

    folder: str | None = recipe(None, "A folder with your own task definitions (YAML) and their data.", min_length=1)


class Merge(merge.Merging):
    """Adapters to merge into the weights of their base."""


class Export(export.Export):
    """The forms in which the trained model leaves the project, each tested on rows of the evaluation."""


class Sweep(Part):
    """Fields with several values; every combination is a point, built as a separate experiment."""

    grid: dict[str, Any] = recipe({}, "Fields as in the spec, each with an array of values: `training.learning_rate = [1e-4, 1e-3]`.")
    points: tuple[dict[str, Any], ...] = recipe(
        (), "Points listed one by one: each a table of fields and values, with an optional `name` in place of one made from the values."
    )
    max_points: int = recipe(MOST_POINTS, "Maximum number of points; a sweep with more is rejected.", gt=0)


class Resources(Part):
    """How steps run. Changes rerun nothing and affect results by rounding at most; by default, the number of cores has no effect."""

    numerics: Numerics = resource(
        "portable",
        "portable: bit-identical results on all x86-64 processors with AVX2 of one vendor, whatever the number of cores; native: the "
        "fastest implementation on this machine.",
    )
    threads: int | None = resource(None, "CPU threads for training and evaluation; default: all cores.", gt=0)
    devices: int = resource(1, "Devices per host for a training; without an accelerator, processes.", gt=0)
    nodes: int = resource(1, "Hosts for a training.", gt=0)
    zero: Literal[0, 1, 2, 3] | Zero = resource(0, "ZeRO stage of a training on several devices, or a table that also sets offloading.")
    micro_batch: Literal["auto"] | Annotated[int, Field(gt=0)] = resource(
        "auto", "Rows per device per forward pass; auto: as many as fit, halved whenever memory runs out."
    )
    checkpoints: train.Checkpoints = resource(train.Checkpoints(), "How often a training writes a checkpoint.")
    report_to: tuple[Literal["tensorboard", "wandb", "mlflow"], ...] = resource((), "Loggers for live metrics, in addition to DVCLive.")
    stop_on_divergence: bool = resource(
        True, "Stop a training whose loss has risen far above its initial value, or that unlearns the chosen answers of its pairs."
    )
    stop_without_progress: int = resource(
        1000, "Stop a training whose loss is still flat this many optimizer steps after the warm-up; 0: never.", ge=0
    )
    evaluation_batch: int = resource(64, "Batch size of generation in evaluation, in rows.", gt=0)
    attention: Attention = resource(
        "auto", "Implementation of attention in trainings; one that is not available is replaced, with a warning."
    )
    gradient_checkpointing: bool = resource(False, "Recompute each layer in the backward pass: less memory, about a fifth more time.")
    torch_compile: bool = resource(False, "Compile the model before training; pays off for long trainings.")
    kernels: Literal["own", "liger"] = resource(
        "own",
        "Kernels of norms and feed-forward layers; own: the model's; liger: fused ones of liger-kernel, if it supports the architecture.",
    )
    device_memory: float | None = resource(None, "Memory of one device in GB; the plan warns if a training does not fit.", gt=0)


class Experiment(Part):
    """One spec: data, tokenization, mixture, training and evaluation of one model."""

    experiment: ExperimentSection = recipe(description="Name and seed.")
    model: Model = recipe(description="The model to train.")
    tasks: dict[Name, Task] = recipe(description="The tasks, by name.", min_length=1)
    tokenization: Tokenization = recipe(Tokenization(), "How rows become tokens and labels.")
    mixture: Mixture | None = recipe(None, "The tasks to train on.")
    training: Training | None = recipe(None, "How the model is trained; leave out with `mixture` to evaluate the model as it is.")
    evaluation: Evaluation = recipe(Evaluation(), "How the model is evaluated.")
    pairs: dict[Name, Pairs] = recipe({}, "Pairs of models' answers, by name, for tasks whose source is `pairs` or `best_of`.")
    benchmarks: Benchmarks | None = recipe(None, "Benchmarks for the trained model: tasks of lm-evaluation-harness, or your own.")
    merge: Merge | None = recipe(None, "Adapters to merge into the weights of their base.")
    export: Export | None = recipe(None, "Formats in which the trained model is exported; each export is tested on held-out rows.")
    sweep: Sweep | Literal[False] = recipe(False, "Fields with several values; false cancels the sweep of an extended spec.")
    resources: Resources = resource(Resources(), "How the steps run.")

    @property
    def method(self) -> train.Method | None:
        """The method of the training; None without one."""
        return self.training.method if self.training else None

    @property
    def evaluated_tasks(self) -> tuple[str, ...]:
        """The tasks for which the model generates predictions."""
        others = self.mixture.tasks if self.mixture else (name for name in self.tasks if name not in self.evaluation.held_out)
        return self.evaluation.tasks or tuple(dict.fromkeys(self.asked_task(name) for name in others))

    @property
    def trained_tasks(self) -> tuple[str, ...]:
        """The tasks of the mixture and, where one is made of answers, the task whose prompts were answered."""
        mixed = self.mixture.tasks if self.mixture else ()
        return tuple(dict.fromkeys((*mixed, *(self.asked_task(name) for name in mixed))))

    def asked_task(self, name: str) -> str:
        """The task whose prompts the rows of task NAME have: itself, unless its rows are made of answers to another one."""
        task = self.tasks.get(name)
        pairs = self.pairs.get(task.source.pairs) if task and isinstance(task.source, BestOf | PairRows) else None
        return pairs.task if pairs else name

    @model_validator(mode="after")
    def _mixture_with_training(self) -> Self:
        """Reject one of the two sections without the other: a section that was forgotten must not become an evaluation only."""
        if (self.mixture is None) != (self.training is None):
            missing = "mixture" if self.mixture is None else "training"
            raise PydanticCustomError("missing", "{missing} is missing", {"missing": missing, "at": (missing,)})
        if not self.evaluated_tasks:
            message = "every task is held out, so the model generates no predictions to evaluate: leave one of them out here"
            raise PydanticCustomError("nothing_asked", message, {"at": ("evaluation", "held_out")})
        return self

    @model_validator(mode="after")
    def _control_tokens_in_prompts(self) -> Self:
        """Reject special tokens in prompts, which would be encoded as text, unless `control_tokens_in_text` says what is intended."""
        tokens = self.tokenization.special_tokens
        if "control_tokens_in_text" in self.tokenization.model_fields_set:
            return self
        for name, task in self.tasks.items():
            written = [(("prompts", index), prompt) for index, prompt in enumerate(task.prompts)] + [(("system",), task.system)]
            for place, template in written:
                if isinstance(template, str) and (token := next((one for one in tokens if one in template), None)):
                    message = (
                        "this prompt contains the special token {token}, which would be encoded as text; put it into tokenization.format, "
                        'or set tokenization.control_tokens_in_text to "control" (or to "text" to encode it as text)'
                    )
                    raise PydanticCustomError("control_tokens", message, {"token": token, "at": ("tasks", name, *place)})
        return self

    @model_validator(mode="after")
    def _zero_fits(self) -> Self:
        training = self.training
        if training is None or not as_zero(self.resources.zero).stage:
            return self
        if training.optimizer.kind != "adamw":
            message = "ZeRO cannot partition the states of {kind}, which are not one value per weight; use adamw"
            raise PydanticCustomError("zero", message, {"kind": training.optimizer.kind, "at": ("training", "optimizer")})
        if training.precision == "float16":
            message = "ZeRO is not supported with float16, which needs loss scaling; use bfloat16"
            raise PydanticCustomError("zero", message, {"at": ("training", "precision")})
        return self

    @model_validator(mode="after")
    def _one_length(self) -> Self:
        mixture, training = self.mixture, self.training
        if mixture and training and (mixture.total_rows or mixture.total_tokens) and (training.epochs or training.steps):
            name = "total_rows" if mixture.total_rows else "total_tokens"
            message = "mixture.{name} sets the length of the training: remove training.epochs and training.steps"
            raise PydanticCustomError("two_lengths", message, {"name": name, "at": ("mixture", name)})
        return self


@dataclass(frozen=True)
class Spec:
    """One experiment, the files that it was read from, and the locations of its values."""

    path: str
    """Relative to the workspace if inside, else absolute; with forward slashes."""
    experiment: Experiment
    document: Node
    files: tuple[str, ...]
    """All TOML files that were read, in reading order."""
    point: Point | None = None
    """The point of a sweep that this spec is; None without a sweep."""

    @property
    def stem(self) -> str:
        """The experiment's name in the file, which all points of a sweep share."""
        return self.experiment.experiment.name

    @property
    def name(self) -> str:
        """The experiment's name, followed for a point of a sweep by the labels of its values."""
        return "-".join((self.stem, *(self.point.labels if self.point else ())))

    @property
    def takes_back(self) -> bool:
        """Whether it sets `sweep = false` to cancel the sweep of a spec that it extends; then its steps may equal those of a point."""
        return "sweep" in self.document.content

    def where(self, *path: str | int) -> Location:
        """The location of the value at PATH, else of the nearest enclosing table in a file, else of the spec."""
        node = self.document.nearest(path)
        return Location(self.path) if node is self.document else node.value

    @cached_property
    def origins(self) -> Mapping[Key, Location]:
        """The location of every value that the files set; for a family member given by name alone, also of its `kind`."""
        origins: dict[Key, Location] = {}
        for path, node in self.document.walk():
            origins[path] = node.value
            if isinstance(node.content, str) and isinstance(self._at(path), Part):
                origins[(*path, "kind")] = node.value
        return origins

    def _at(self, path: Key) -> object:
        """The value at PATH of the experiment."""
        value: object = self.experiment
        for key in path:
            value = getattr(value, str(key)) if isinstance(value, Part) else value[key]  # type: ignore[index]
        return value
