"""Adapters on their base: a single one, or several combined into one."""

from pathlib import Path
from typing import Any

from engine.core.errors import UserError
from stages.merge import Parameters
from stages.models.added_tokens import extend
from stages.models.folders import load_adapter, load_model
from stages.models.quantisation import round_weights
from stages.process.job import Job

COMBINED = "combined"


def open_base(parameters: Parameters, job: Job) -> Any:
    """The base to merge into, in full precision; with quantisation, its weights are rounded to the quantised values."""
    model = load_model(job.inputs["model"])
    if "vocabulary" in job.inputs:
        extend(model, job.inputs["vocabulary"])
    if parameters.quantised:
        round_weights(model, parameters.quantised)
    return model


def open_quantised(parameters: Parameters, job: Job) -> Any:
    """The quantised base, as in training."""
    assert parameters.quantised
    return load_model(job.inputs["model"], quantisation=parameters.quantised)


def adapt(model: Any, parameters: Parameters, folders: dict[str, Path]) -> Any:
    """MODEL with one adapter that combines those in FOLDERS; raises UserError if they cannot be combined."""
    first, *others = sorted(folders)
    adapted = load_adapter(model, folders[first], first)
    if not others and parameters.adapters[first] == 1:
        return adapted
    for name in others:
        adapted = load_adapter(adapted, folders[name], name)
    _combine(adapted, parameters, [first, *others])
    return adapted


def _combine(adapted: Any, parameters: Parameters, names: list[str]) -> None:
    import torch

    # The new adapter takes its configuration from the first one and is already scaled: by 1, unless rslora scales by square roots of ranks.
    adapted.peft_config[names[0]].use_rslora = False
    weights = [parameters.adapters[name] for name in names]
    torch.manual_seed(parameters.seed)
    try:
        adapted.base_model.add_weighted_adapter(names, weights, COMBINED, **parameters.combination.options())
    except (ValueError, TypeError, RuntimeError) as error:
        raise UserError(f"cannot combine the adapters {', '.join(names)}: {error}") from error
    adapted.set_adapter(COMBINED)
    adapted.eval()
