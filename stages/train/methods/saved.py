"""The method of an adapter that exists, from the `adapter_config.json` that peft wrote."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from engine.core.errors import UserError
from stages.models.folders import read_adapter_config
from stages.train.methods import Ia3, Lora, Method, PrefixTuning, PromptTuning
from stages.train.methods.base import LowRank, TrainingMethod

_Saved = type[Lora] | type[Ia3] | type[PromptTuning] | type[PrefixTuning]

_ALWAYS = frozenset(
    {
        *("peft_type", "task_type", "auto_mapping", "peft_version", "base_model_name_or_path", "revision", "inference_mode"),
        # How an adapter began says nothing about its form; initializations that change the base are refused by name.
        *("init_lora_weights", "init_ia3_weights", "prompt_tuning_init", "prompt_tuning_init_text", "tokenizer_name_or_path"),
        *("tokenizer_kwargs", "init_weights", "eva_config", "runtime_config", "lora_dropout", "qalora_group_size", "megatron_core"),
        # They follow from the model.
        *("fan_in_fan_out", "token_dim", "num_transformer_submodules", "num_attention_heads", "num_layers", "encoder_hidden_size"),
        # A spec adds tokens in a step of its own.
        "trainable_token_indices",
    }
)
_FIELDS: Mapping[type[TrainingMethod], tuple[str, ...]] = {
    Lora: ("r", "lora_alpha", "target_modules", "use_rslora", "use_dora", "modules_to_save", "bias"),
    Ia3: ("target_modules", "feedforward_modules"),
    PromptTuning: ("num_virtual_tokens",),
    PrefixTuning: ("num_virtual_tokens",),
}
"""The values of peft that have the same name and meaning in the spec."""
_METHODS: Mapping[str, _Saved] = {"LORA": Lora, "IA3": Ia3, "PROMPT_TUNING": PromptTuning, "PREFIX_TUNING": PrefixTuning}
_MOVED = ("pissa", "olora", "corda", "loftq", "lora_ga")
"""Initializations after which peft's adapters are updates of changed base weights."""
_BY_TENSORS = ("target_modules", "feedforward_modules")
"""Fields whose effect is in the names of the adapter's tensors: peft also writes patterns and lists in place of `all-linear`."""


def saved_method(config: Mapping[str, Any]) -> Method | str:
    """The method that trains adapters of the form in CONFIG, an `adapter_config.json`; else the reason why no method does."""
    sort = str(config.get("peft_type"))
    kind = _METHODS.get(sort)
    if kind is None:
        return f"its peft_type is {sort}; methods exist for {', '.join(sorted(_METHODS))}"
    if str(config.get("init_lora_weights")).lower().startswith(_MOVED):
        return (
            f"init_lora_weights is {config['init_lora_weights']}: it is an update of base weights that peft changed; "
            "convert it with peft's save_pretrained(..., path_initial_model_for_weight_conversion=...)"
        )
    known = {*_ALWAYS, *_FIELDS[kind]}
    if others := sorted(name for name, value in config.items() if value and name not in known):
        return f"it uses {', '.join(others)} of peft, which the methods of a spec do not have"
    given = {name: _value(config[name]) for name in _FIELDS[kind] if config.get(name) is not None}
    # Not validated: adapters exist that a spec could not train, such as one with a fractional alpha.
    return kind.model_construct(**given)


def _value(value: Any) -> Any:
    return tuple(sorted(value)) if isinstance(value, list) else value


def differences(method: TrainingMethod, saved: TrainingMethod) -> dict[str, Any]:
    """The fields of METHOD that must have other values to train an adapter of the form SAVED further, with these values.

    `kind` if it is another method altogether. Layers are not compared, since the adapter's tensors show them.
    """
    low_rank = isinstance(method, LowRank) and isinstance(saved, LowRank)
    if not low_rank and method.kind != saved.kind:
        return {"kind": saved.kind}
    found = {name: getattr(saved, name) for name in _FIELDS[type(saved)] if name not in _BY_TENSORS}
    if low_rank:
        found["init_lora_weights"] = "default"
    return {name: value for name, value in found.items() if _unordered(value) != _unordered(getattr(method, name))}


def refuse_other(method: TrainingMethod, adapter: Path) -> None:
    """Raise UserError if METHOD cannot train the ADAPTER in a folder further.

    Its tensors alone do not show it: with another alpha, the same weights would be another update.
    """
    saved = saved_method(read_adapter_config(adapter))
    if isinstance(saved, str):
        raise UserError(f"the adapter in {adapter} cannot be trained further: {saved}", hint="merge it, and train the merged model")
    if found := differences(method, saved):
        listed = ", ".join(f"{name} = {list(value) if isinstance(value, tuple) else value}" for name, value in found.items())
        raise UserError(f"the adapter in {adapter} was trained with {listed}", hint="set the same in training.method")


def _unordered(value: Any) -> Any:
    return set(value) if isinstance(value, tuple) else value
