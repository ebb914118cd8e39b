"""The steps that export a trained model, and the checks whether its adapter can be exported so."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from engine.checks.configurations import read_adapter_config
from engine.compile.compilation import Compilation, Subject, encoder_decoder, locate_below, narrow
from engine.core.errors import Problem
from engine.core.graph import Input, Step
from engine.identity.environment import Environment, find
from stages import export, predict
from stages.export.formats import ExportFormat
from stages.export.formats.base import Adapter
from stages.merge import Merging
from stages.train.methods.base import LowRank

_MORE = ("use_dora", "modules_to_save")


def add_exports(c: Compilation, subject: Subject, asked: Step, merged: Callable[[Merging], Step | None]) -> None:
    """Add one step for each format in the `[export]` of SUBJECT's spec; nothing without that section.

    ASKED is the predict step of its evaluation. MERGED adds the step that merges as a section says, and is called if a format needs it; it
    returns None if that section has problems.
    """
    spec = subject.spec
    section = spec.experiment.export
    if section is None:
        return
    found = [problem for number, into in enumerate(section.formats) for problem in _problems(c, subject, number, into)]
    if found or encoder_decoder(spec, subject.base):
        what = "encoder-decoder models cannot be exported: an export is asked as a causal model"
        c.problems += found or [Problem(what, spec.where("export"), "remove [export]; [merge] writes their weights")]
        return
    weights = merged(spec.experiment.merge or Merging()) if any(_needs_merge(subject, into) for into in section.formats) else None
    for number, into in enumerate(section.formats):
        if weights or not _needs_merge(subject, into):
            c.add(_step(subject, number, into, weights, asked), spec)


def _step(subject: Subject, number: int, into: ExportFormat, merged: Step | None, asked: Step) -> Step:
    spec = subject.spec
    section, predicted = spec.experiment.export, asked.parameters
    assert section and isinstance(predicted, predict.Parameters)
    weights = merged.output() if merged and _needs_merge(subject, into) else None
    reads = _reference(subject, weights)
    split = spec.experiment.evaluation.split
    # The rows that the predict step answers, rendered as it renders them.
    reads |= {f"test/{task}": asked.inputs[f"{split}/{task}"] for task in predicted.tasks}
    reads |= {role: item for role, item in asked.inputs.items() if role == "chat_template"}
    parameters = narrow(
        export.Parameters,
        predicted,
        into=into,
        rows=section.rows,
        tasks={task: one.max_new_tokens for task, one in predicted.tasks.items()},
        threads=spec.experiment.resources.threads,
    )
    moved: dict[str, tuple[Any, ...]] = {name: ("tokenization", name) for name in ("format", "boundary", "unrendered")}
    moved |= {"into": ("export", "formats", number), "tasks": ("tasks",), "threads": ("resources", "threads")}
    moved |= {"markers": ("tokenization", "mask"), "strip_reasoning": ("tokenization", "mask", "reasoning")}
    moved |= {"control_tokens_in_text": ("tokenization", "control_tokens_in_text")}
    where = spec.where("export", "formats", number)
    description = f"{subject.stem} as {into.label}."
    name = f"export-{subject.stem}-{into.label}"
    return Step(name, export.KIND, parameters, reads, description, where, locate_below(spec, ("export",), **moved))


def _needs_merge(subject: Subject, into: ExportFormat) -> bool:
    """Whether INTO holds merged weights."""
    return not into.of_adapter and (subject.adapter is not None or subject.spec.experiment.merge is not None)


def _reference(subject: Subject, weights: Input | None) -> dict[str, Input]:
    """The trained model that is asked, by role, and the merged WEIGHTS that are exported, if the adapter is merged.

    Merged weights are compared with the adapter on its base, as the predict step asks them; but with themselves if the adapter was trained
    on a quantised base, or if several are merged: then no predict step asks the same model.
    """
    if weights is None:
        return subject.reads()
    section = subject.spec.experiment.merge
    alone = section is None or (set(section.adapters) <= {subject.name, subject.stem} and set(section.adapters.values()) <= {1.0})
    quantised = subject.method is not None and subject.method.quantisation is not None
    if alone and not quantised:
        return {**subject.reads(), "weights": weights}
    # Their tokenizer, with added tokens, lies next to them.
    return {"model": weights}


def _problems(c: Compilation, subject: Subject, number: int, into: ExportFormat) -> Iterator[Problem]:
    """Why the model of SUBJECT cannot be exported as INTO."""
    where = subject.spec.where("export", "formats", number)
    # Where a lock lists them, others may have built the export; the step itself refuses to run without them.
    lock = Environment(c.root) if c.root else None
    missing = [name for name in into.packages if find(name) is None and not (lock and lock.lists(name))]
    if missing:
        what = f"the format {into.label} needs packages that are not installed: {', '.join(missing)}"
        yield Problem(what, where, f"pip install 'adapterbuild[{into.extra}]'")
    adapter = _adapter(c, subject)
    if into.of_adapter and subject.adapter is not None and subject.spec.experiment.merge and subject.spec.experiment.merge.adapters:
        what = f"the format {into.label} holds one adapter, and [merge] combines several"
        yield Problem(what, where, 'use { kind = "merged" } or { kind = "gguf" }')
    elif refused := into.refused(adapter):
        yield Problem(f"{subject.name} cannot be exported as {into.label}: {refused[0]}", where, refused[1])


def _adapter(c: Compilation, subject: Subject) -> Adapter | None:
    """What is known of the adapter of SUBJECT; None if its model is a whole one."""
    if subject.adapter is None:
        return None
    added = {"special_tokens": subject.base.vocabulary is not None}
    method = subject.method
    if method is None:
        config = read_adapter_config(c.root / subject.adapter.path) if c.root else None
        return _of_config(config or {}, added)
    if not isinstance(method, LowRank):
        return Adapter(method.kind, more=added)
    saved = method.as_saved()
    assert isinstance(saved, LowRank)
    more = {name: bool(getattr(method, name)) for name in _MORE} | {"bias": method.bias != "none"}
    return Adapter(method.kind, saved.r, more | added)


def _of_config(config: Mapping[str, Any], added: Mapping[str, bool]) -> Adapter:
    """The adapter with peft's CONFIG; for one that is not here yet, nothing is known, and the step fails if it does not fit."""
    method = str(config.get("peft_type", "LORA")).lower()
    ranks = [config.get("r") or 0, *(config.get("rank_pattern") or {}).values()]
    more = {name: bool(config.get(name)) for name in _MORE} | {"bias": config.get("bias", "none") != "none"}
    more |= {"patterns": bool(config.get("rank_pattern") or config.get("alpha_pattern"))}
    return Adapter(method, max(ranks), more | dict(added))
