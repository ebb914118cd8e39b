"""Rows and answers that are longer than a model's context, told from specs and configurations before anything runs."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.core.errors import Problem
from engine.spec.load import Spec
from engine.spec.sections import ScratchModel
from stages.generate.teachers.local import Local
from stages.models.positions import ENDLESS, positions


@dataclass(frozen=True)
class Context:
    """How many tokens a model has positions for, and what a person may do to have more."""

    model: str
    tokens: int
    wider: str


def read_config(model: Path) -> Mapping[str, Any] | None:
    """The configuration of the model in a folder; None where it is not here, or cannot be read."""
    try:
        values = json.loads((model / "config.json").read_text("utf-8"))
    except (OSError, ValueError):
        # The step that loads the model says what is wrong with it.
        return None
    return values if isinstance(values, dict) else None


def of_scratch(spec: Spec, model: ScratchModel) -> Context | None:
    """The context of the model that SPEC makes; None where its positions have no end."""
    if model.architecture.kind in ENDLESS:
        return None
    where = spec.where("model", "architecture", "max_length")
    return Context(model.name, model.architecture.max_length, f"raise model.architecture.max_length ({where})")


def of_folder(name: str, folder: str, config: Mapping[str, Any] | None) -> Context | None:
    """The context of the model in FOLDER, whose config.json holds CONFIG; None where nothing is known, or nothing bounds its rows."""
    found = positions(config) if config else None
    return found and Context(name, found[1], f"take a model with more ({folder}/config.json says {found[0]} = {found[1]})")


def long_rows(spec: Spec, context: Context | None) -> Iterator[Problem]:
    """A problem for each length that SPEC asks for by itself, and that its model has no positions for.

    A bin of packed rows may be longer, as positions restart with each row.
    """
    if context is None:
        return
    taken = spec.experiment.training.method.virtual_tokens
    room = context.tokens - taken
    for name in ("max_length", "max_target_length"):
        length = getattr(spec.experiment.tokenization, name)
        where = spec.origins.get(("tokenization", name))
        if where is not None and length > room:
            what = f"tokenization.{name} is {length}, but {_has(context, taken)}"
            hint = f"set it to at most {room}, or {context.wider}" if room > 1 else f"lower num_virtual_tokens, or {context.wider}"
            yield Problem(what, where, hint)


def long_answer(spec: Spec, task: str, context: Context | None) -> Iterator[Problem]:
    """A problem where the answers of TASK may be so long that its model has no position left for a question."""
    if context is None:
        return
    taken, asked = spec.experiment.training.method.virtual_tokens, spec.experiment.tasks[task].max_new_tokens
    room = context.tokens - taken
    if asked >= room:
        what = f"max_new_tokens {asked} of task '{task}' leaves no room for a prompt: {_has(context, taken)}"
        yield Problem(what, spec.where("tasks", task, "max_new_tokens"), f"set it lower than {room}, or {context.wider}")


def long_answer_of_teacher(spec: Spec, task: str, root: Path | None) -> Iterator[Problem]:
    """As `long_answer`, for a model below ROOT that writes the completions of TASK."""
    teacher = spec.experiment.tasks[task].teacher
    if root is None or not isinstance(teacher, Local) or teacher.path is None:
        return
    config, asked = read_config(root / teacher.path) or {}, teacher.max_new_tokens
    context = None if config.get("is_encoder_decoder") else of_folder(teacher.path, teacher.path, config)
    if context is not None and asked >= context.tokens:
        what = f"teacher.max_new_tokens {asked} of task '{task}' leaves no room for a prompt: {_has(context, 0)}"
        where = spec.where("tasks", task, "teacher", "max_new_tokens")
        yield Problem(what, where, f"set it lower than {context.tokens}, or {context.wider}")


def _has(context: Context, taken: int) -> str:
    """What a model has, in words."""
    adapter = f", of which the adapter's virtual tokens take {taken}" if taken else ""
    return f"model {context.model} has {context.tokens} positions{adapter}"
