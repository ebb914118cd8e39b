"""Checks whether one experiment can continue training the adapter of another."""

from typing import TYPE_CHECKING

from engine.core.errors import Problem
from engine.spec.notation import toml

if TYPE_CHECKING:
    from engine.spec.sections import Spec


def not_continued(spec: "Spec", other: "Spec") -> list[Problem]:
    """Why SPEC cannot continue training the adapter of OTHER; empty if it can."""
    method, before = spec.experiment.method, other.experiment.method
    if method is None or before is None:
        return []
    before, name = before.as_saved(), other.name
    if method.kind != before.kind:
        what = f"method {method.kind} cannot continue the {before.kind} adapter of experiment '{name}'"
        hint = f'use method "{before.kind}", or start from a model into which {name} is merged'
        return [Problem(what, spec.where("training", "method"), hint)]
    differing = [key for key in method.continued_fields() if getattr(method, key) != getattr(before, key)]
    hint = "set the same value: an adapter's structure is fixed; learning rates, schedules and dropout may change"
    return [
        Problem(
            f"method.{key} is {toml(getattr(method, key))}, but the adapter of '{name}' has {toml(getattr(before, key))}",
            spec.where("training", "method", key),
            hint,
        )
        for key in differing
    ]
