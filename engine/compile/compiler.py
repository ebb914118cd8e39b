"""Compiles specs to one graph: sections become steps, equal steps are merged, conflicting names are rejected."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePosixPath

from engine.checks.bin_length import bin_tokens, unpackable
from engine.checks.configurations import CHAT_TEMPLATE, has_template_file, read_adapter_config, read_config
from engine.checks.context_length import long_answer_of_teacher, long_rows, of_folder, of_scaled, of_scratch
from engine.checks.continued_adapter import not_continued
from engine.checks.template_fields import broken_chat_template, unknown_fields
from engine.compile.benchmarks import add_benchmarks
from engine.compile.compilation import Base, Compilation, Contribution, Locate, Specs, Subject, chat_template, encoder_decoder
from engine.compile.compilation import locate_below as _locate
from engine.compile.compilation import narrow as _narrow
from engine.compile.distillation import add_logits
from engine.compile.evaluation import add_answers, add_evaluation, add_judgement, add_predictions
from engine.compile.export import add_exports
from engine.compile.headlines import add_headlines
from engine.compile.merge import add_merge
from engine.compile.pairs import PairMakers, add_pairs
from engine.compile.shared_steps import share
from engine.compile.task_inputs import Makers, needed_by
from engine.core.errors import Location, Problem, UserError
from engine.core.gc_pause import without_collection
from engine.core.graph import Graph, Input, Step
from engine.core.part import Need
from engine.spec.models import TOKENIZER_FILES, GgufModel, HubModel, LocalModel, ScratchModel, TrainedModel
from engine.spec.sections import Mixture, Spec, Training
from stages import dequantise, fetch, generate, initialize, mix, reference, rescale, split, tokenize, train, vocabulary
from stages.chat.formats.chat import Chat
from stages.generate.layout import UNPAIRED
from stages.merge import Merging
from stages.rescale.configuration import Unscalable, scaled
from stages.tokenize.pairs import unfit_for_judged, unfit_for_pairs
from stages.train.methods.saved import saved_method
from stages.train.objectives import Objective
from stages.train.objectives.distill import Distill
from stages.train.zero import as_zero

_TRAINING_RESOURCES = (
    *("threads", "devices", "nodes", "checkpoints", "report_to", "stop_on_divergence", "stop_without_progress"),
    *("attention", "gradient_checkpointing", "torch_compile", "kernels"),
)
"""The resources of a training that have the same names in `[resources]` and in the parameters of `train`."""


def compile_graph(specs: Iterable[Spec]) -> Graph:
    """The graph of SPECS; raises UserError with all problems, such as different steps with the same name."""
    compiled = compile_each(specs)
    if compiled.problems:
        raise UserError(compiled.problems)
    return compiled.graph()


@dataclass(frozen=True)
class Compiled:
    """The steps of specs, producers first, as far as they could be compiled, and all problems."""

    steps: tuple[Step, ...]
    problems: list[Problem]
    aliases: Mapping[str, str]
    contributions: Mapping[str, Contribution] | None
    """What each experiment added; None if steps of sweeps were renamed, which depends on all specs."""

    def graph(self) -> Graph:
        """The steps as a graph; call it only if there are no problems."""
        return Graph(self.steps, self.aliases)


@without_collection
def compile_each(specs: Iterable[Spec], whole: bool = True, root: Path | None = None) -> Compiled:
    """The steps of SPECS as far as they can be compiled, and all problems.

    If SPECS are not the WHOLE workspace, a spec that refers to a missing one is not a problem. The configurations of models in folders
    of the workspace ROOT are read."""
    first = Compilation(Specs(specs), root, whole)
    compilation = _compiled(first)
    if compilation.per_point:
        # Only now is it known which steps of a sweep are equal, which determines what predictions are needed.
        compilation = _compiled(Compilation(first.specs, root, whole, renamed=share(compilation).aliases))
    shared = share(compilation)
    problems = list(dict.fromkeys([*compilation.problems, *shared.problems]))
    return Compiled(shared.steps, problems, shared.aliases, None if compilation.per_point else compilation.contributions)


def _compiled(compilation: Compilation) -> Compilation:
    """Add the steps and problems of all specs to COMPILATION; the points of a sweep are compiled separately."""
    for spec in compilation.specs.all:
        try:
            compilation.contribute(spec, partial(_experiment, compilation, spec))
        except UserError as error:
            compilation.problems += error.problems if compilation.whole else ()
    return compilation


def targets(spec: Spec) -> tuple[str, ...]:
    """The names of the final steps of SPEC, which a build of SPEC produces."""
    name = spec.name
    sections = {"benchmark": spec.experiment.benchmarks, "merge": spec.experiment.merge}
    exports = [f"export-{name}-{into.label}" for into in spec.experiment.export.formats] if spec.experiment.export else []
    return (f"score-{name}", *(f"{kind}-{name}" for kind, section in sections.items() if section), *exports)


def _experiment(c: Compilation, spec: Spec) -> None:
    """Add all steps of SPEC."""
    subject = _subject(c, spec)
    add_benchmarks(c, subject)

    def task_of(of: Spec, task: str) -> Step:
        return _task(c, of, task)

    def subject_of(name: str) -> Subject:
        return _subject(c, c.specs[name])

    add_headlines(c, subject, add_evaluation(c, subject, task_of, subject_of))
    add_merge(c, subject, task_of, subject_of)
    if spec.experiment.export:
        add_exports(c, subject, add_predictions(c, subject, task_of), partial(add_merge, c, subject, task_of, subject_of))


def _subject(c: Compilation, spec: Spec) -> Subject:
    """The model of SPEC: trained if it has a training, else as it is."""
    base = _base(c, spec, (spec.name,))
    return Subject(spec, base, _train(c, spec, base, spec.experiment.training) if spec.experiment.training else None)


def _task(c: Compilation, spec: Spec, name: str, chain: tuple[str, ...] = ()) -> Step:
    """Add the generate and split steps of a task; returns the split step. CHAIN holds the tasks that depend on this one's rows."""
    if known := c.tasks.get((spec.name, name)):
        return known
    task = spec.experiment.tasks[name]
    where = spec.where("tasks", name)
    division = task.division
    validation, test = division.shares
    parameters = _narrow(
        generate.Parameters,
        task,
        group_by=task.split.group_by,
        split_column=division.column,
        test_source=task.split.test_source,
        # With few-shot examples the split affects the rows, since examples are drawn from train rows only.
        held_out=generate.HeldOut(validation=validation, test=test, seed=task.split.seed) if task.few_shot else None,
    )
    below = ("tasks", name, "split")
    moved = {"group_by": "group_by", "split_column": "column", "test_source": "test_source"}
    locate = _locate(spec, ("tasks", name), held_out=below, **{field: (*below, key) for field, key in moved.items()})
    c.problems += [*unknown_fields(spec, name), *long_answer_of_teacher(spec, name, c.root)]
    makers = Makers(
        lambda other: _task(c, spec, other, (*chain, name)),
        lambda model, where: _fetched(c, spec, *model, where, lambda path: where),
        lambda need, where: _pairs(c, spec, need, where, (*chain, name)),
    )
    reads, wrong = needed_by(spec, parameters, locate, (*chain, name), makers)
    c.problems += wrong
    rows = c.add(Step(f"generate-{name}", generate.KIND, parameters, reads, f"Rows of task {name}.", where, locate), spec)
    shares = _narrow(split.Parameters, task.split, validation=validation, test=test, fixed=division.fixed)
    c.tasks[spec.name, name] = c.add(
        Step(
            f"split-{name}",
            split.KIND,
            shares,
            {"rows": rows.output("rows.jsonl")},
            f"Train, validation and test rows of task {name}.",
            where,
            _locate(spec, below),
        ),
        spec,
    )
    return c.tasks[spec.name, name]


def _pairs(c: Compilation, spec: Spec, need: Need, where: Location | None, chain: tuple[str, ...]) -> Step:
    """Add the steps of the `[pairs.<name>]` of which a task at WHERE has NEED; returns the one that writes pairs and answers."""
    makers = PairMakers(
        lambda task: _task(c, spec, task, chain),
        lambda experiment: _subject(c, c.specs[experiment]),
        partial(add_answers, c, spec),
        partial(add_judgement, c, spec),
    )
    return add_pairs(c, spec, need, where, makers)


def _base(c: Compilation, spec: Spec, chain: tuple[str, ...]) -> Base:
    """The model that SPEC starts from, with its adapter and the special tokens that SPEC adds."""
    return _vocabulary(c, spec, _adapted(c, spec, _rescaled(c, spec, _model(c, spec, chain))))


def _rescaled(c: Compilation, spec: Spec, base: Base) -> Base:
    """BASE with the scaling of rotary positions that SPEC sets, if any; adds the step that writes it."""
    model = spec.experiment.model
    scaling = getattr(model, "rope_scaling", None)
    if scaling is None:
        return base
    where = spec.where("model", "rope_scaling")
    config = None
    try:
        config = scaled(base.config, scaling) if base.config else None
    except Unscalable as reason:
        c.problems.append(Problem(f"rope_scaling does not fit model {base.name}: {reason}", where, "remove it, or use another kind"))
    whose = model.experiment if isinstance(model, TrainedModel) and base.adapter is None else base.name
    parameters = rescale.Parameters(rope_scaling=scaling)
    description = f"Model {whose} with {scaling.kind} scaling of rotary positions."
    name, locate = f"rescale-{whose}-{scaling.kind}", _locate(spec, ("model",))
    step = c.add(Step(name, rescale.KIND, parameters, {"model": base.weights}, description, where, locate), spec)
    return replace(
        base,
        weights=step.output(),
        variant=_variant(base, scaling.kind),
        config=config,
        context=of_scaled(spec, scaling, base.context, config),
    )


def _adapted(c: Compilation, spec: Spec, base: Base) -> Base:
    """BASE with the adapter that SPEC puts on it, if any; adds the step that fetches it."""
    adapter = getattr(spec.experiment.model, "adapter", None)
    if adapter is None:
        return base
    where = spec.where("model", "adapter")
    if isinstance(adapter, str):
        config = read_adapter_config(c.root / adapter) if c.root else None
        method = saved_method(config) if config else None
        known = None if isinstance(method, str) else method
        return replace(base, adapter=Input(adapter, where=where), adapter_name=_as_name(PurePosixPath(adapter).name), method=known)
    name = _as_name(adapter.id.rsplit("/", 1)[-1])
    step = _fetched(c, spec, adapter.id, adapter.revision, where, _locate(spec, ("model", "adapter")), f"adapter-{name}")
    return replace(base, adapter=step.output(), adapter_name=name, method=None)


def _model(c: Compilation, spec: Spec, chain: tuple[str, ...]) -> Base:
    """The model that SPEC starts from; adds the steps that create or fetch it."""
    model = spec.experiment.model
    if isinstance(model, ScratchModel):
        return _scratch(c, spec, model)
    if isinstance(model, LocalModel):
        folder, where = PurePosixPath(model.path), spec.where("model", "path")
        names = model.tokenizer_files
        if c.root and _reads_own_template(spec) and "tokenizer_files" not in model.model_fields_set and has_template_file(c.root / folder):
            names += (CHAT_TEMPLATE,)
        files = {name: Input(str(folder / name), where=where) for name in names}
        config = read_config(c.root / folder) if c.root else None
        pairs = None if config is None else bool(config.get("is_encoder_decoder", False))
        name = model.name or _as_name(folder.name)
        context = of_folder(name, model.path, config)
        return Base(name, Input(str(folder), where=where), files, encoder_decoder=pairs, context=context, config=config)
    if isinstance(model, HubModel):
        name = model.name or _as_name(model.id.rsplit("/", 1)[-1])
        step = _fetched(c, spec, model.id, model.revision, spec.where("model"), _locate(spec, ("model",)), name)
        return Base(name, step.output(), {file: step.output(file) for file in model.tokenizer_files})
    if isinstance(model, GgufModel):
        step = _dequantised(c, spec, model)
        return Base(step.name.partition("-")[2], step.output(), {file: step.output(file) for file in TOKENIZER_FILES})
    return _trained(c, spec, model, chain)


def _reads_own_template(spec: Spec) -> bool:
    """Whether SPEC formats rows by the tokenizer's own chat template."""
    form = spec.experiment.tokenization.format
    return isinstance(form, Chat) and form.template is None and form.template_file is None


def _dequantised(c: Compilation, spec: Spec, model: GgufModel) -> Step:
    """Add the step that dequantises a GGUF file into a model folder."""
    name = model.name or _as_name(PurePosixPath(model.gguf).name.partition(".")[0])
    reads = {"gguf": Input(str(PurePosixPath(model.gguf)), where=spec.where("model", "gguf"))}
    parameters = _narrow(dequantise.Parameters, model)
    description = f"Dequantised model of {PurePosixPath(model.gguf).name}."
    return c.add(
        Step(f"dequantise-{name}", dequantise.KIND, parameters, reads, description, spec.where("model"), _locate(spec, ("model",))), spec
    )


def _fetched(c: Compilation, spec: Spec, model: str, revision: str, where: Location, locate: Locate, name: str | None = None) -> Step:
    """Add the step that fetches a revision of a model from the hub."""
    parameters = fetch.Parameters(id=model, revision=revision)
    name = name or _as_name(model.rsplit("/", 1)[-1])
    return c.add(Step(f"fetch-{name}", fetch.KIND, parameters, {}, f"Model {model} from the hub.", where, locate), spec)


def _scratch(c: Compilation, spec: Spec, model: ScratchModel) -> Base:
    tasks = model.tokenizer.tasks or tuple(spec.experiment.tasks)
    reads = {f"rows/{task}": _task(c, spec, task).output("train.jsonl") for task in tasks}
    parameters = _narrow(initialize.Parameters, model)
    description = f"Tokenizer and random weights of {model.name}."
    step = c.add(
        Step(f"initialize-{model.name}", initialize.KIND, parameters, reads, description, spec.where("model"), _locate(spec, ("model",))),
        spec,
    )
    files = {name: step.output(name) for name in TOKENIZER_FILES}
    return Base(model.name, step.output(), files, encoder_decoder=model.architecture.encoder_decoder, context=of_scratch(spec, model))


def _trained(c: Compilation, spec: Spec, model: TrainedModel, chain: tuple[str, ...]) -> Base:
    """The model trained by another experiment; its tokenizer is that of the first model in the chain."""
    where = spec.where("model", "experiment")
    if model.experiment in chain:
        what = f"cycle of model.experiment: {' -> '.join((*chain, model.experiment))}"
        raise UserError(what, where, "start one of them from another model")
    other = c.specs.get(model.experiment)
    if other is None:
        raise UserError(f"no experiment '{model.experiment}' in this workspace", where, c.meant(model.experiment, c.specs))
    base = _base(c, other, (*chain, model.experiment))
    training = other.experiment.training
    subject = Subject(other, base, _train(c, other, base, training) if training else None)
    if model.merged:
        return _merged(c, spec, subject)
    if training is None or subject.trained is None:
        return base
    trained = subject.trained.output()
    if not training.method.makes_adapter:
        return replace(base, weights=trained, vocabulary=None, adapter=None, method=None)
    c.problems += not_continued(spec, other)
    return replace(base, adapter=trained, method=training.method)


def _merged(c: Compilation, spec: Spec, other: Subject) -> Base:
    """The model of OTHER, which SPEC starts from, with its adapter merged into the weights; adds the step that merges."""
    where, method = spec.where("model", "merged"), other.method
    if other.adapter is None:
        how = f"is trained with method {method.kind}" if method else "trains nothing"
        raise UserError(f"experiment '{other.name}' {how} and has no adapter to merge", where, "remove merged")
    if method and method.virtual_tokens:
        what = f"the adapter of '{other.name}' consists of virtual tokens ({method.kind}), which cannot be merged into weights"
        raise UserError(what, where, "remove merged, which trains that adapter further")
    section = other.spec.experiment.merge or Merging()
    step = add_merge(c, other, partial(_task, c), lambda name: _subject(c, c.specs[name]), section)
    # Without a step, the section has problems, which are noted.
    weights = step.output() if step else other.base.weights
    base = replace(other.base, weights=weights, vocabulary=None, adapter=None, method=None)
    return replace(base, variant=_variant(base, "merged"), adapter_name=None)


def _variant(base: Base, more: str) -> str:
    return "-".join(part for part in (base.variant, more) if part)


def _vocabulary(c: Compilation, spec: Spec, base: Base) -> Base:
    """BASE with the special tokens of SPEC, if any."""
    section, method = spec.experiment.tokenization, spec.experiment.method
    if not section.special_tokens:
        return base
    where = spec.where("tokenization", "special_tokens")
    if method is None:
        what = "special_tokens are added in a training, and this spec has none"
        raise UserError(what, where, "remove them, or start from the experiment that adds them: model.experiment")
    if not getattr(method, "learns_new_tokens", False):
        what = f"method '{method.kind}' cannot train the embeddings of special_tokens"
        c.problems.append(Problem(what, where, 'use training.method "lora" or "full", or remove special_tokens'))
    if "tokenizer.json" not in base.tokenizer:
        c.problems.append(Problem("special_tokens require a tokenizer.json", where, "add it to model.tokenizer_files"))
    name = "-".join(part for part in ("vocabulary", base.name, section.name) if part)
    reads = {f"tokenizer/{file}": item for file, item in base.tokenizer.items()}
    parameters = vocabulary.Parameters(special_tokens=section.special_tokens)
    description = f"Tokenizer of {base.name} with special tokens."
    step = c.add(Step(name, vocabulary.KIND, parameters, reads, description, where, _locate(spec, ("tokenization",))), spec)
    return replace(base, tokenizer={file: step.output(file) for file in base.tokenizer}, vocabulary=step.output())


def _tokens(c: Compilation, spec: Spec, base: Base, task: str, objective: Objective) -> Step:
    """Add the step that tokenizes a task: its answers, both answers of its pairs, or its judged answers, as OBJECTIVE learns."""
    judged = objective.on_pairs and _is_judged(spec, task)
    on_pairs = objective.on_pairs and not judged
    if judged and not objective.on_judged:
        what = f"the answers of task '{task}' were judged alone (layout \"{UNPAIRED}\"), and {objective.kind} compares the answers of pairs"
        raise UserError(what, spec.where("training", "objective"), 'set training.objective.kind = "kto", or give the task pairs')
    rows = _task(c, spec, task)
    section = spec.experiment.tokenization
    reads = {name: rows.output(f"{name}.jsonl") for name in ("train", "validation")}
    reads |= {f"tokenizer/{name}": file for name, file in base.tokenizer.items()}
    reads |= chat_template(spec)
    sort = "pairs" if on_pairs else "judged" if judged else None
    name = "-".join(part for part in ("tokenize", task, sort, base.name, section.name) if part)
    python_tokenizer = None if "tokenizer.json" in base.tokenizer else tokenize.PythonTokenizer()
    translates = encoder_decoder(spec, base)
    unfit = unfit_for_pairs if on_pairs else unfit_for_judged if judged else None
    if unfit and (wrong := unfit(section.model_copy(update={"encoder_decoder": translates}))):
        raise UserError(wrong[1], spec.where("tokenization", wrong[0]), wrong[2])
    parameters = _narrow(
        tokenize.Parameters, section, python_tokenizer=python_tokenizer, encoder_decoder=translates, pairs=on_pairs, judged=judged
    )
    where = spec.where("tokenization")
    return c.add(
        Step(name, tokenize.KIND, parameters, reads, f"Tokens of {task} for {base.name}.", where, _locate(spec, ("tokenization",))),
        spec,
    )


def _is_judged(spec: Spec, task: str) -> bool:
    """Whether the answers of a task were judged alone."""
    layout = spec.experiment.tasks[task].layout
    return layout is not None and layout.kind == UNPAIRED


def _reference(c: Compilation, spec: Spec, base: Base, training: Training, task: str, tokens: Step, mismatched: bool = False) -> Step:
    """Add the step that computes the log-probabilities of a task's answers under the model that TRAINING starts from.

    It depends on nothing else of the training, so that all values of beta, and all learning rates, share it. MISMATCHED: of each answer
    after another row's prompt; a step of its own, so that objectives with and without a divergence share the other one.
    """
    model, section = spec.experiment.model, spec.experiment.tokenization
    half = training.precision if training.precision in ("bfloat16", "float16") else "float32"
    quantisation = training.method.quantisation
    parameters = reference.Parameters(
        precision=training.precision,
        dtype=half if training.method.makes_adapter else "float32",
        quantisation=quantisation,
        mismatched=mismatched,
        attention=spec.experiment.resources.attention,
        threads=spec.experiment.resources.threads,
    )
    reads = {**base.reads(), **{split: tokens.output(f"{split}.safetensors") for split in ("train", "validation")}}
    whose = base.named(model.experiment if isinstance(model, TrainedModel) else base.name)
    bits = f"{quantisation.bits}bit" if quantisation else None
    precision = training.precision if training.precision != "float32" else None
    name = "-".join(
        part for part in ("reference", whose, task, section.name, bits, precision, "mismatched" if mismatched else None) if part
    )
    locate = _locate(spec, ("training",), quantisation=("training", "method"), dtype=("training", "precision"))
    where = spec.where("training", "objective")
    what = f"Log-probabilities of {'mismatched answers of ' if mismatched else ''}{task} under {whose}."
    return c.add(Step(name, reference.KIND, parameters, reads, what, where, locate), spec)


def _mix(c: Compilation, spec: Spec, tokens: Mapping[str, Step], training: Training, mixture: Mixture) -> Step:
    experiment = spec.experiment
    name = spec.stem
    parameters = mix.Parameters(
        sampler=mixture.sampler,
        # The mixture is as long as the training: it contains every row that the training uses, in order.
        epochs=None if training.steps or mixture.total_rows or mixture.total_tokens else training.epochs or 1,
        rows=training.steps * training.global_batch.rows if training.steps else mixture.total_rows,
        tokens=mixture.total_tokens,
        bin_tokens=bin_tokens(experiment, training),
        seed=experiment.experiment.seed,
    )
    reads = {f"tokens/{task}": step.output("train.safetensors") for task, step in tokens.items()}
    locate = _locate(
        spec,
        ("mixture",),
        seed=("experiment", "seed"),
        epochs=("training", "epochs"),
        rows=("training", "steps") if training.steps else ("mixture", "total_rows"),
        tokens=("mixture", "total_tokens"),
        bin_tokens=("training", "batching"),
    )
    return c.add(Step(f"mix-{name}", mix.KIND, parameters, reads, f"Order of the rows of {name}.", spec.where("mixture"), locate), spec)


def _train(c: Compilation, spec: Spec, base: Base, training: Training) -> Step:
    experiment = spec.experiment
    mixture = experiment.mixture
    assert mixture, "a training has a mixture"
    name = spec.stem
    c.problems += [*unpackable(spec, training), *long_rows(spec, base.context), *broken_chat_template(spec)]
    tokens = {task: _tokens(c, spec, base, task, training.objective) for task in mixture.tasks}
    if training.objective.on_judged and len(sorts := {_is_judged(spec, task): task for task in tokens}) > 1:
        what = f"the mixture has pairs of answers (task '{sorts[False]}') and answers that were judged alone (task '{sorts[True]}')"
        c.problems.append(Problem(what, spec.where("mixture", "tasks"), "train on one sort: split each pair into two rows with a label"))
    reads = {**base.reads(), "order": _mix(c, spec, tokens, training, mixture).output()}
    reads |= {f"tokens/{task}": step.output("train.safetensors") for task, step in tokens.items()}
    reads |= {f"validation/{task}": step.output("validation.safetensors") for task, step in tokens.items()}
    if training.objective.needs_reference:
        reads |= {f"reference/{task}": _reference(c, spec, base, training, task, step).output() for task, step in tokens.items()}
    if training.objective.estimates_kl:
        reads |= {f"mismatched/{task}": _reference(c, spec, base, training, task, step, True).output() for task, step in tokens.items()}
    if isinstance(training.objective, Distill):
        teach = add_logits(c, spec, base, training.objective, lambda name: _subject(c, c.specs[name]))
        reads |= {f"logits/{task}": teach(task, step).output() for task, step in tokens.items()}
    # All tasks of a spec have the same format.
    reads["format"] = tokens[min(tokens)].output("format.json")
    resources = experiment.resources
    parameters = _narrow(
        train.Parameters,
        training,
        seed=experiment.experiment.seed,
        micro_batch=None if resources.micro_batch == "auto" else resources.micro_batch,
        zero=as_zero(resources.zero),
        **{name: getattr(resources, name) for name in _TRAINING_RESOURCES},
    )
    what = "Adapter" if parameters.method.makes_adapter else "Model"
    resources_at = {name: ("resources", name) for name in (*_TRAINING_RESOURCES, "zero", "micro_batch")}
    locate = _locate(spec, ("training",), seed=("experiment", "seed"), **resources_at)
    return c.add(Step(f"train-{name}", train.KIND, parameters, reads, f"{what} of {name}.", spec.where("training"), locate), spec)


def _as_name(text: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in text.lower()).strip("-") or "model"
