"""How many tokens a model has positions for, told from its configuration alone."""

from collections.abc import Mapping
from typing import Any

_KEYS = ("max_position_embeddings", "n_positions", "seq_length")
"""What configurations call it; where several stand in one, the first is meant."""

ENDLESS = frozenset({"bloom", "t5", "mt5", "umt5", "longt5", "switch_transformers"})
"""Architectures whose ALiBi (Press et al., 2022, arXiv:2108.12409) or relative positions have no end, whatever length is named."""


def positions(config: Mapping[str, Any]) -> tuple[str, int] | None:
    """The key of CONFIG, a model's config.json, that bounds a row, and how many tokens it allows; None where none does.

    Rotary positions that CONFIG stretches by a factor reach as much further.
    """
    if config.get("model_type") in ENDLESS or config.get("alibi") is True:
        return None
    found = next(((key, value) for key in _KEYS if isinstance(value := config.get(key), int)), None)
    return found and (found[0], _stretched(found[1], config.get("rope_parameters") or config.get("rope_scaling")))


def _stretched(length: int, rotary: object) -> int:
    """LENGTH, or what ROTARY's factor makes of the length that the model was first made for: configurations name the one or the other."""
    factor = rotary.get("factor") if isinstance(rotary, Mapping) else None
    if not isinstance(rotary, Mapping) or not isinstance(factor, int | float):
        return length
    first = rotary.get("original_max_position_embeddings")
    return max(length, int(factor * (first if isinstance(first, int) else length)))
