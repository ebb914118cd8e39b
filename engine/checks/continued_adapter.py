"""Whether the adapter of one experiment can be trained further by another."""

from engine.core.errors import Problem
from engine.spec.load import Spec


def not_continued(spec: Spec, other: Spec) -> list[Problem]:
    """Why the method of SPEC cannot go on from the adapter of OTHER; empty where it can."""
    method, before = spec.experiment.training.method, other.experiment.training.method.as_saved()
    name = other.name
    if method.kind != before.kind:
        what = f"experiment '{name}' trains an adapter by {before.kind}, which {method.kind} cannot train further"
        hint = f'take method "{before.kind}", or start from a model that {name} is merged into'
        return [Problem(what, spec.where("training", "method"), hint)]
    differing = [key for key in method.continued_fields() if getattr(method, key) != getattr(before, key)]
    hint = "what an adapter is made of stays when it is trained further; rates, schedules and dropout may change"
    return [
        Problem(
            f"method.{key} is {_shown(getattr(method, key))}, but the adapter of '{name}' has {_shown(getattr(before, key))}",
            spec.where("training", "method", key),
            hint,
        )
        for key in differing
    ]


def _shown(value: object) -> str:
    return f"'{value}'" if isinstance(value, str) else str(value)
