"""The export carries the chat template of the training: without one, programs guess."""

from collections.abc import Sequence
from typing import Any

from stages.export.asked import Asked
from stages.export.formats.base import Limits
from stages.export.material import Material
from stages.export.rules.base import Differs
from stages.export.runtimes.base import Runtime


def check(material: Material, runtime: Runtime, asked: Sequence[Asked], limits: Limits) -> dict[str, Any]:
    """Raises Differs if the template is missing or another one; a program may render another one alike on a few rows."""
    taught, found = material.taught.template, runtime.template
    if taught is None:
        return {}
    shown = next((f"{one}, whose prompt begins with {one.question.text[:40]!r}" for one in asked if one.question.text), "any row")
    if found is None:
        raise Differs(f"it carries no chat template, so {runtime.name} would guess one for {shown}")
    if found.rstrip("\n") != taught.rstrip("\n"):
        raise Differs(f"its chat template is not the one of the training, which {runtime.name} would use for {shown}")
    return {}
