"""Checks of row and prediction lengths against the context length of models, from specs and configurations alone."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.checks.configurations import read_config
from engine.core.errors import Problem
from stages.generate.teachers.local import Local
from stages.models.positions import ENDLESS, positions
from stages.rescale.scalings import Scaling

if TYPE_CHECKING:
    from engine.spec.models import ScratchModel
    from engine.spec.sections import Spec


@dataclass(frozen=True)
class Context:
    """A model's context length, and how to increase it."""

    model: str
    tokens: int
    """The number of positions."""
    remedy: str
    """Part of a hint: how to get a longer context."""


def of_scratch(spec: "Spec", model: "ScratchModel") -> Context | None:
    """The context of SPEC's model from scratch; None if its number of positions is unlimited."""
    if model.architecture.kind in ENDLESS:
        return None
    where = spec.where("model", "architecture", "max_length")
    return Context(model.name, model.architecture.max_length, f"raise model.architecture.max_length ({where})")


def of_folder(name: str, folder: str, config: Mapping[str, Any] | None) -> Context | None:
    """The context of the model in FOLDER with the configuration CONFIG; None if it is unknown or unlimited."""
    found = positions(config) if config else None
    return found and Context(name, found[1], f"use a model with a longer context ({folder}/config.json: {found[0]} = {found[1]})")


def of_scaled(spec: "Spec", scaling: Scaling, before: Context | None, config: Mapping[str, Any] | None) -> Context | None:
    """The context of SPEC's model with SCALING; BEFORE is that without it, CONFIG the scaled configuration, None if it is not available."""
    found = positions(config) if config else None
    if before is None and found is None:
        return None
    tokens = found[1] if found else round(before.tokens * scaling.factor) if before else 0
    name = before.model if before else spec.name
    return Context(name, tokens, f"raise model.rope_scaling.factor ({spec.where('model', 'rope_scaling', 'factor')})")


def long_rows(spec: "Spec", context: Context | None) -> Iterator[Problem]:
    """A problem for each token length set in SPEC that exceeds the model's context.

    Bins of packed rows may be longer, since positions restart with each row.
    """
    if context is None:
        return
    virtual = _virtual(spec)
    room = context.tokens - virtual
    for name in ("max_length", "max_target_length"):
        length = getattr(spec.experiment.tokenization, name)
        where = spec.origins.get(("tokenization", name))
        if where is not None and length > room:
            what = f"tokenization.{name} is {length}, but {_described(context, virtual)}"
            hint = f"set it to at most {room}, or {context.remedy}" if room > 1 else f"lower num_virtual_tokens, or {context.remedy}"
            yield Problem(what, where, hint)


def long_answer(spec: "Spec", task: str, context: Context | None) -> Iterator[Problem]:
    """A problem if the predictions of TASK may fill the model's context, so that no positions are left for a prompt."""
    if context is None:
        return
    virtual, longest = _virtual(spec), spec.experiment.tasks[task].max_new_tokens
    room = context.tokens - virtual
    if longest >= room:
        what = f"max_new_tokens {longest} of task '{task}' leaves no room for a prompt: {_described(context, virtual)}"
        yield Problem(what, spec.where("tasks", task, "max_new_tokens"), f"set it lower than {room}, or {context.remedy}")


def long_answer_of_teacher(spec: "Spec", task: str, root: Path | None) -> Iterator[Problem]:
    """As `long_answer`, for a local teacher model, in a folder of the workspace ROOT, that writes the completions of TASK."""
    teacher = spec.experiment.tasks[task].teacher
    if root is None or not isinstance(teacher, Local) or teacher.path is None:
        return
    config, longest = read_config(root / teacher.path) or {}, teacher.max_new_tokens
    context = None if config.get("is_encoder_decoder") else of_folder(teacher.path, teacher.path, config)
    if context is not None and longest >= context.tokens:
        what = f"teacher.max_new_tokens {longest} of task '{task}' leaves no room for a prompt: {_described(context, 0)}"
        where = spec.where("tasks", task, "teacher", "max_new_tokens")
        yield Problem(what, where, f"set it lower than {context.tokens}, or {context.remedy}")


def _virtual(spec: "Spec") -> int:
    """The positions that the adapter of SPEC's training takes."""
    return spec.experiment.method.virtual_tokens if spec.experiment.method else 0


def _described(context: Context, virtual: int) -> str:
    """A phrase for a context of which an adapter takes VIRTUAL tokens."""
    adapter = f", {virtual} of them taken by the adapter's virtual tokens" if virtual else ""
    return f"model {context.model} has {context.tokens} positions{adapter}"
