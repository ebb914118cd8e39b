"""Holds an export against every rule."""

from collections.abc import Callable, Sequence
from typing import Any

from engine.core.errors import UserError
from stages.export.asked import Asked
from stages.export.formats.base import Limits
from stages.export.material import Material
from stages.export.rules import answers, chat_template, ends, next_token, output_layer, positions, prompts
from stages.export.rules.base import Differs
from stages.export.runtimes.base import Runtime

Rule = Callable[[Material, Runtime, Sequence[Asked], Limits], dict[str, Any]]

RULES: tuple[Rule, ...] = (
    chat_template.check,
    prompts.check,
    ends.check,
    positions.check,
    output_layer.check,
    next_token.check,
    answers.check,
)
"""In this order: the first that fails names the cause, the later ones would see its effects."""


def check(material: Material, runtime: Runtime, asked: Sequence[Asked], limits: Limits) -> dict[str, Any]:
    """What the rules measured; raises UserError if the export that RUNTIME runs is not the trained model, which said what is in ASKED."""
    found: dict[str, Any] = {}
    for rule in RULES:
        try:
            found |= rule(material, runtime, asked, limits)
        except Differs as why:
            raise UserError(f"the export is not the trained model: {why}", hint=why.hint) from None
    return found
