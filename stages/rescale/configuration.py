"""The configuration of a model with scaled rotary positions, derived from config.json alone."""

from collections.abc import Mapping
from typing import Any

from stages.models.positions import ENDLESS
from stages.rescale.scalings import LongRope, Scaling

_LEARNED = frozenset({"gpt2", "opt", "gpt_bigcode", "bart", "pegasus"})
"""Architectures with one learned embedding per position."""


class Unscalable(Exception):
    """The model cannot be scaled so; the message is the reason."""


def scaled(config: Mapping[str, Any], scaling: Scaling) -> dict[str, Any]:
    """CONFIG, a model's config.json, with SCALING in place of its own scaling, if any; raises Unscalable if its positions are not rotary.

    Scalings that state the original length set `max_position_embeddings` to the new one, others to the original one, as their formulas in
    transformers expect.
    """
    sort = config.get("model_type")
    if sort in ENDLESS or sort in _LEARNED or config.get("alibi") is True:
        raise Unscalable(f"{sort}{' with ALiBi' if config.get('alibi') is True else ''} has no rotary positions")
    before = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if not isinstance(before, Mapping) or any(isinstance(value, Mapping) for value in before.values()):
        raise Unscalable("its layers have different rotary positions, which one scaling cannot replace")
    stated = config.get("max_position_embeddings")
    if not isinstance(stated, int):
        raise Unscalable("its config.json has no max_position_embeddings")
    found = before.get("original_max_position_embeddings", config.get("original_max_position_embeddings"))
    original = getattr(scaling, "original_max_position_embeddings", None) or (found if isinstance(found, int) else stated)
    theta, partial = (before.get(name, config.get(name)) for name in ("rope_theta", "partial_rotary_factor"))
    if isinstance(scaling, LongRope):
        _refuse_misfit(config, scaling, partial)
    own = {name: value for name, value in (("rope_theta", theta), ("partial_rotary_factor", partial)) if value is not None}
    length = {"original_max_position_embeddings": original} if scaling.states_original else {}
    kept = {name: value for name, value in config.items() if name not in ("rope_scaling", "original_max_position_embeddings")}
    longest = round(original * scaling.factor) if scaling.states_original else original
    return kept | {"rope_parameters": {**own, **scaling.values(), **length}, "max_position_embeddings": longest}


def _refuse_misfit(config: Mapping[str, Any], scaling: LongRope, partial: object) -> None:
    width = config.get("head_dim") or int(config.get("hidden_size", 0)) // int(config.get("num_attention_heads", 1))
    wanted = int(width * (partial if isinstance(partial, int | float) else 1)) // 2
    for name in ("short_factor", "long_factor"):
        if (length := len(getattr(scaling, name))) != wanted:
            raise Unscalable(f"{name} needs {wanted} values, half the rotary dimensions of a head, got {length}")
