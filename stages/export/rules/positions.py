"""The export scales rotary positions as the trained model does; short rows may not show it."""

from collections.abc import Sequence
from typing import Any

from stages.export.asked import Asked
from stages.export.formats.base import Limits
from stages.export.material import Material
from stages.export.rules.base import Differs
from stages.export.runtimes.base import Runtime
from stages.models.folders import json_object
from stages.models.positions import rotary

_SAME = 1e-4
"""Relative difference of two numbers that are the same, one of them in float32."""


def check(material: Material, runtime: Runtime, asked: Sequence[Asked], limits: Limits) -> dict[str, Any]:
    """Raises Differs if kind, factor or base frequency of the rotary positions differ."""
    found = runtime.positions
    wanted = rotary(json_object(material.weights / "config.json"))
    longest = max(asked, key=lambda one: len(one.question.prompt))
    for name, value in wanted.items():
        if not _same(value, found.get(name)):
            what = f"{name} of the rotary positions is {_said(found.get(name))} in the export, and {_said(value)} in the trained model"
            raise Differs(f"{what}: {longest}, the longest, has {len(longest.question.prompt)} tokens")
    return {}


def _same(wanted: object, found: object) -> bool:
    if isinstance(wanted, float) and isinstance(found, float):
        return abs(wanted - found) <= _SAME * abs(wanted)
    return wanted == found


def _said(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value or "not set")
