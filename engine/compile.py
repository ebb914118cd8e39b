"""Specs become one graph: each section a step or several, equal steps one, clashes refused."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any, TypeVar

from engine.collection import without_collection
from engine.continuing import not_continued
from engine.errors import Location, Problem, UserError, did_you_mean
from engine.graph import Graph, Input, Step
from engine.identity import canonical, recipe_of
from engine.part import Part
from engine.spec.load import Spec
from engine.spec.sections import HubModel, LocalModel, ScratchModel, TrainedModel
from stages import evaluate, fetch, generate, initialize, mix, split, tokenize, train
from stages.generate.sources.jsonl import Jsonl
from stages.train.zero import as_zero

P = TypeVar("P", bound=Part)
Locate = Callable[[tuple[str | int, ...]], Location | None]

_TRAINING_RESOURCES = (
    *("threads", "devices", "nodes", "checkpoints", "report_to", "stop_on_divergence"),
    *("attention", "gradient_checkpointing", "torch_compile", "kernels"),
)
"""The resources that say how a training runs, by the same name in a spec and in the step."""

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")


@dataclass(frozen=True)
class Base:
    """A model to start from: its name, its weights, and the folder whose tokenizer belongs to it."""

    name: str
    weights: Input
    tokenizer: Mapping[str, Input]
    adapter: Input | None = None
    """The adapter that is trained further."""


@dataclass
class Compilation:
    """Steps as they are found, by name; a name that comes again must mean the same step."""

    specs: Mapping[str, Spec]
    steps: dict[str, Step] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    tasks: dict[tuple[str, str], Step] = field(default_factory=dict)
    """The split step of each task, by the spec's path and the task's name."""

    def add(self, step: Step) -> Step:
        """STEP, or the equal one that another spec asked for before."""
        known = self.steps.setdefault(step.name, step)
        if known is not step and (difference := _difference(known, step)):
            self.problems.append(_clash(known, step, difference))
        return known


def compile_graph(specs: Iterable[Spec]) -> Graph:
    """The graph of all SPECS; raises UserError where two of them mean different things by one name."""
    steps, problems = compile_each(specs)
    if problems:
        raise UserError(problems)
    return Graph(steps)


@without_collection
def compile_each(specs: Iterable[Spec], whole: bool = True) -> tuple[tuple[Step, ...], list[Problem]]:
    """The steps of SPECS as far as they can be told, producers first, and every problem.

    Where these are not the WHOLE of a workspace's specs, what one of them misses among the others is no problem of its own."""
    compilation = Compilation({spec.experiment.experiment.name: spec for spec in specs})
    for spec in compilation.specs.values():
        try:
            _experiment(compilation, spec, ())
        except UserError as error:
            compilation.problems += error.problems if whole else ()
    return tuple(compilation.steps.values()), list(dict.fromkeys(compilation.problems))


def remarks(spec: Spec) -> list[str]:
    """What may be meant and is probably not: a person should read it, and nothing is refused."""
    model, longest = spec.experiment.model, spec.experiment.tokenization.max_length
    place = spec.origins.get(("tokenization", "max_length"))
    if not isinstance(model, ScratchModel) or place is None or longest <= model.architecture.max_length:
        return []
    positions = f"model {model.name} has {model.architecture.max_length} positions"
    return [f"tokenization.max_length is {longest}, but {positions}: a row that is longer would end the training ({place})"]


def targets(spec: Spec) -> tuple[str, ...]:
    """The names of the steps that a spec is built for."""
    return (f"evaluate-{spec.experiment.experiment.name}",)


def _experiment(c: Compilation, spec: Spec, chain: tuple[str, ...]) -> Step:
    """Add all steps of SPEC; CHAIN holds the experiments that wait for this one's model."""
    name = spec.experiment.experiment.name
    base = _base(c, spec, (*chain, name))
    trained = _train(c, spec, base)
    _evaluate(c, spec, base, trained)
    return trained


def _task(c: Compilation, spec: Spec, name: str) -> Step:
    """The rows of one task, generated and split; gives the split step."""
    if known := c.tasks.get((spec.path, name)):
        return known
    task = spec.experiment.tasks[name]
    where = spec.where("tasks", name)
    reads = {}
    if isinstance(task.source, Jsonl):
        reads["source"] = Input(task.source.path, where=spec.where("tasks", name, "source", "path"))
    rows = c.add(
        Step(
            f"generate-{name}",
            generate.KIND,
            _narrow(generate.Parameters, task, group_by=task.split.group_by),
            reads,
            f"Rows of task {name}.",
            where,
            _locate(spec, ("tasks", name), group_by=("tasks", name, "split", "group_by")),
        )
    )
    c.tasks[spec.path, name] = c.add(
        Step(
            f"split-{name}",
            split.KIND,
            _narrow(split.Parameters, task.split),
            {"rows": rows.output("rows.jsonl")},
            f"Train, validation and test of {name}.",
            where,
            _locate(spec, ("tasks", name, "split")),
        )
    )
    return c.tasks[spec.path, name]


def _base(c: Compilation, spec: Spec, chain: tuple[str, ...]) -> Base:
    """The model that SPEC starts from, made by a step where it does not exist yet."""
    model = spec.experiment.model
    if isinstance(model, ScratchModel):
        return _scratch(c, spec, model)
    if isinstance(model, LocalModel):
        folder, where = PurePosixPath(model.path), spec.where("model", "path")
        files = {name: Input(str(folder / name), where=where) for name in TOKENIZER_FILES}
        return Base(model.name or _as_name(folder.name), Input(str(folder), where=where), files)
    if isinstance(model, HubModel):
        name = model.name or _as_name(model.id.rsplit("/", 1)[-1])
        parameters = fetch.Parameters(id=model.id, revision=model.revision)
        where = spec.where("model")
        step = c.add(Step(f"fetch-{name}", fetch.KIND, parameters, {}, f"Model {model.id} from the hub.", where, _locate(spec, ("model",))))
        return Base(name, step.output(), {file: step.output(file) for file in TOKENIZER_FILES})
    return _trained(c, spec, model, chain)


def _scratch(c: Compilation, spec: Spec, model: ScratchModel) -> Base:
    tasks = model.tokenizer.tasks or tuple(spec.experiment.tasks)
    reads = {f"rows/{task}": _task(c, spec, task).output("train.jsonl") for task in tasks}
    parameters = _narrow(initialize.Parameters, model)
    description = f"Tokenizer and random weights of {model.name}."
    step = c.add(
        Step(f"initialize-{model.name}", initialize.KIND, parameters, reads, description, spec.where("model"), _locate(spec, ("model",)))
    )
    return Base(model.name, step.output(), {name: step.output(name) for name in TOKENIZER_FILES})


def _trained(c: Compilation, spec: Spec, model: TrainedModel, chain: tuple[str, ...]) -> Base:
    """The model of another experiment; its tokenizer is that of the model at the chain's beginning."""
    where = spec.where("model", "experiment")
    if model.experiment in chain:
        raise UserError(f"experiments train each other's models in a circle: {' -> '.join((*chain, model.experiment))}", where)
    other = c.specs.get(model.experiment)
    if other is None:
        raise UserError(f"no spec of this workspace is experiment '{model.experiment}'", where, did_you_mean(model.experiment, c.specs))
    base = _base(c, other, (*chain, model.experiment))
    trained = _train(c, other, base).output()
    if not other.experiment.training.method.makes_adapter:
        return Base(base.name, trained, base.tokenizer)
    c.problems += not_continued(spec, other)
    return Base(base.name, base.weights, base.tokenizer, trained)


def _tokens(c: Compilation, spec: Spec, base: Base, task: str) -> Step:
    rows = _task(c, spec, task)
    section = spec.experiment.tokenization
    reads = {name: rows.output(f"{name}.jsonl") for name in ("train", "validation")}
    reads |= {f"tokenizer/{name}": file for name, file in base.tokenizer.items()}
    name = "-".join(part for part in ("tokenize", task, base.name, section.name) if part)
    parameters = _narrow(tokenize.Parameters, section)
    where = spec.where("tokenization")
    return c.add(
        Step(name, tokenize.KIND, parameters, reads, f"Tokens of {task} for {base.name}.", where, _locate(spec, ("tokenization",)))
    )


def _mix(c: Compilation, spec: Spec, tokens: Mapping[str, Step]) -> Step:
    experiment = spec.experiment
    training = experiment.training
    name = experiment.experiment.name
    parameters = mix.Parameters(
        sampler=experiment.mixture.sampler,
        # The mixture is as long as the training: it orders every row that the training will see.
        epochs=None if training.steps else training.epochs or 1,
        rows=training.steps * training.global_batch.rows if training.steps else None,
        seed=experiment.experiment.seed,
    )
    reads = {f"tokens/{task}": step.output("train.safetensors") for task, step in tokens.items()}
    locate = _locate(spec, ("mixture",), seed=("experiment", "seed"), epochs=("training", "epochs"), rows=("training", "steps"))
    return c.add(Step(f"mix-{name}", mix.KIND, parameters, reads, f"Order of the rows of {name}.", spec.where("mixture"), locate))


def _train(c: Compilation, spec: Spec, base: Base) -> Step:
    experiment = spec.experiment
    name = experiment.experiment.name
    tokens = {task: _tokens(c, spec, base, task) for task in experiment.mixture.tasks}
    reads = {"model": base.weights, "order": _mix(c, spec, tokens).output()}
    reads |= {"adapter": base.adapter} if base.adapter else {}
    reads |= {f"tokens/{task}": step.output("train.safetensors") for task, step in tokens.items()}
    reads |= {f"validation/{task}": step.output("validation.safetensors") for task, step in tokens.items()}
    resources = experiment.resources
    parameters = _narrow(
        train.Parameters,
        experiment.training,
        seed=experiment.experiment.seed,
        micro_batch=None if resources.micro_batch == "auto" else resources.micro_batch,
        zero=as_zero(resources.zero),
        **{name: getattr(resources, name) for name in _TRAINING_RESOURCES},
    )
    what = "Adapter" if parameters.method.makes_adapter else "Model"
    locate = _locate(spec, ("training",), seed=("experiment", "seed"), **{name: ("resources", name) for name in _TRAINING_RESOURCES})
    return c.add(Step(f"train-{name}", train.KIND, parameters, reads, f"{what} of {name}.", spec.where("training"), locate))


def _evaluate(c: Compilation, spec: Spec, base: Base, trained: Step) -> Step:
    experiment = spec.experiment
    section, resources = experiment.evaluation, experiment.resources
    tasks = section.tasks or experiment.mixture.tasks
    c.problems += [problem for task in tasks for problem in _unanswerable(spec, task)]
    adapter = experiment.training.method.makes_adapter
    reads = {"model": base.weights, "adapter": trained.output()} if adapter else {"model": trained.output()}
    reads |= {f"test/{task}": _task(c, spec, task).output("test.jsonl") for task in tasks}
    over_length = experiment.tokenization.over_length
    parameters = evaluate.Parameters(
        tasks={task: evaluate.TaskEvaluation(max_new_tokens=experiment.tasks[task].max_new_tokens) for task in tasks},
        metrics=section.metrics,
        # A test row has no completion to cut: what is not about the prompt is an error here.
        over_length="error" if over_length == "truncate_completion_right" else over_length,
        rows=section.rows,
        batch_rows=resources.evaluation_batch,
        threads=resources.threads,
    )
    name = experiment.experiment.name
    where = spec.where("evaluation")
    locate = _locate(spec, ("evaluation",), tasks=("tasks",), over_length=("tokenization", "over_length"))
    return c.add(Step(f"evaluate-{name}", evaluate.KIND, parameters, reads, f"Answers of {name} to the test rows.", where, locate))


def _unanswerable(spec: Spec, name: str) -> list[Problem]:
    """Why a task cannot be evaluated, found before anything is trained."""
    task, model = spec.experiment.tasks[name], spec.experiment.model
    found = []
    if "" in task.prompts:
        what = f"task '{name}' has an empty prompt, so there is nothing to ask"
        found.append(Problem(what, spec.where("tasks", name), "give it prompts, or leave it out of evaluation.tasks"))
    if task.split.test == 0:
        what = f"task '{name}' is evaluated, but its split holds out no test rows"
        found.append(Problem(what, spec.where("tasks", name, "split", "test"), "raise split.test, or leave it out of evaluation.tasks"))
    if isinstance(model, ScratchModel) and task.max_new_tokens >= model.architecture.max_length:
        positions = f"the model has {model.architecture.max_length} positions"
        what = f"max_new_tokens {task.max_new_tokens} of task '{name}' leaves no room for a prompt: {positions}"
        found.append(
            Problem(what, spec.where("tasks", name, "max_new_tokens"), "lower max_new_tokens, or raise model.architecture.max_length")
        )
    return found


def _narrow(parameters: type[P], section: Part, **more: Any) -> P:
    """The fields of a kind's PARAMETERS that a spec's SECTION holds, and MORE."""
    values = {name: getattr(section, name) for name in parameters.model_fields if name in type(section).model_fields}
    return parameters(**{**values, **more})


def _locate(spec: Spec, section: tuple[str, ...], **elsewhere: tuple[str, ...]) -> Locate:
    """Where SPEC gives a field of a recipe: below SECTION, save for the fields that another section decides."""

    def locate(path: tuple[str | int, ...]) -> Location:
        if path and path[0] in elsewhere:
            return spec.where(*elsewhere[str(path[0])], *path[1:])
        return spec.where(*section, *path)

    return locate


def _as_name(text: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in text.lower()).strip("-") or "model"


def _difference(one: Step, other: Step) -> str | None:
    """The first field in which two steps of one name differ in recipe or wiring; None where they are the same step."""
    if one.kind is not other.kind:
        return "kind"
    if dict(one.inputs) != dict(other.inputs):
        return "inputs"
    if type(one.parameters) is type(other.parameters) and _text(one.parameters) == _text(other.parameters):
        return None
    a, b = recipe_of(one.parameters), recipe_of(other.parameters)
    return next((key for key in a if canonical(a[key]) != canonical(b.get(key))), None)


def _text(parameters: Part) -> str:
    """All that PARAMETERS hold, members of families as what they are: equal texts are equal recipes, and this is fast."""
    return parameters.model_dump_json(serialize_as_any=True)


def _clash(one: Step, other: Step, difference: str) -> Problem:
    hint = "give one of them another name, or set the value in a part that both extend"
    if one.kind is tokenize.KIND:
        hint = 'give one of them a name of its own, [tokenization] name = "...", or set the value in a part that both extend'
    return Problem(
        f"'{one.name}' means two different steps: they differ in {difference}; the other is asked for at {one.origin}", other.origin, hint
    )
