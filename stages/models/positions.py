"""The maximum number of positions of a model, from its configuration alone."""

from collections.abc import Mapping
from typing import Any

_KEYS = ("max_position_embeddings", "n_positions", "seq_length")
"""Keys of the maximum length in configurations; the first one present counts."""

ENDLESS = frozenset({"bloom", "t5", "mt5", "umt5", "longt5", "switch_transformers"})
"""Architectures with ALiBi (Press et al., 2022, arXiv:2108.12409) or relative positions, which have no limit, whatever they state."""


def positions(config: Mapping[str, Any]) -> tuple[str, int] | None:
    """The key of CONFIG, a model's config.json, that limits a row, and its limit in tokens; None if there is no limit.

    RoPE scaling in CONFIG extends the limit by its factor.
    """
    if config.get("model_type") in ENDLESS or config.get("alibi") is True:
        return None
    found = next(((key, value) for key in _KEYS if isinstance(value := config.get(key), int)), None)
    return found and (found[0], _stretched(found[1], config.get("rope_parameters") or config.get("rope_scaling")))


def _stretched(length: int, rotary: object) -> int:
    """The longer of LENGTH and ROTARY's original length times its factor: configurations state either the scaled or the original length."""
    factor = rotary.get("factor") if isinstance(rotary, Mapping) else None
    if not isinstance(rotary, Mapping) or not isinstance(factor, int | float):
        return length
    first = rotary.get("original_max_position_embeddings")
    return max(length, int(factor * (first if isinstance(first, int) else length)))


def rotary(config: dict[str, Any]) -> dict[str, Any]:
    """Kind, factor and base frequency of the rotary positions in a model's config.json; empty if it has none."""
    settings = config.get("rope_parameters") or config.get("rope_scaling") or {}
    theta = settings.get("rope_theta", config.get("rope_theta"))
    kind = settings.get("rope_type", settings.get("type", "default"))
    if not settings and theta is None:
        return {}
    found: dict[str, Any] = {"kind": kind}
    if kind != "default" and isinstance(settings.get("factor"), int | float):
        found["factor"] = float(settings["factor"])
    return found | ({} if theta is None else {"base frequency": float(theta)})
