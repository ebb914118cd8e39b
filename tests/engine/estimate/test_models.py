"""Parameters and linear layers from configurations alone, against real modules of every architecture and method."""

import json
from typing import Any, get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from transformers import AutoConfig

from engine.core.part import Part
from engine.estimate.configurations import configuration
from engine.estimate.methods import counts, targets, trainable_parameters
from engine.estimate.models import Model, model_of
from stages.initialize.architectures import T5, Architecture, Bloom, Falcon, Gpt2, GptNeox, Llama, Mistral, Qwen2, Qwen3
from stages.models.folders import auto_class, count_parameters, load_model, save_model, write_json
from stages.models.layers import linear_layers
from stages.train.methods import Full, Ia3, Lora, Method, PrefixTuning, PromptTuning, Qlora

VOCABULARY = 300
SMALL = {"hidden_size": 24, "layers": 2, "heads": 6, "max_length": 40}

ARCHITECTURES = {
    "bloom": Bloom(**SMALL),
    "bloom, one layer": Bloom(hidden_size=32, layers=1, heads=2),
    "falcon": Falcon(**SMALL),
    "falcon, three key/value heads": Falcon(**SMALL, kv_heads=3),
    "falcon, one key/value head": Falcon(**SMALL, kv_heads=1),
    "falcon 7B's layer": Falcon(**SMALL, new_decoder_architecture=False),
    "falcon 7B's layer, wider": Falcon(hidden_size=48, layers=3, heads=8, new_decoder_architecture=False, kv_heads=1),
    "gpt2": Gpt2(**SMALL),
    "gpt2, deeper": Gpt2(hidden_size=16, layers=5, heads=1, max_length=7),
    "llama": Llama(**SMALL),
    "llama, two key/value heads": Llama(**SMALL, kv_heads=2),
    "llama, odd width": Llama(**SMALL, intermediate_size=37, kv_heads=3),
    "gpt_neox": GptNeox(**SMALL, rotary_pct=1.0),
    "mistral": Mistral(**SMALL, kv_heads=3),
    "qwen2": Qwen2(**SMALL),
    "qwen3": Qwen3(**SMALL, kv_heads=2),
    "t5": T5(**SMALL),
}

METHODS = [
    Full(),
    Lora(r=1),
    Lora(r=5, lora_dropout=0.1, use_dora=True, bias="all"),
    Lora(r=4, init_lora_weights="mica", bias="lora_only"),
    Lora(r=2, init_lora_weights="pissa", modules_to_save=("lm_head",)),
    Qlora(r=3),
    PromptTuning(num_virtual_tokens=5),
    PrefixTuning(num_virtual_tokens=5),
    Ia3(),
]

_LLAMA = {"hidden_size": 64, "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 32, "max_position_embeddings": 40}
SIZES: dict[str, dict[str, Any]] = {
    "bloom": {"hidden_size": 24, "n_layer": 2, "n_head": 6},
    "falcon": {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 6},
    "gpt2": {"n_embd": 24, "n_layer": 2, "n_head": 6, "n_positions": 40},
    "llama": _LLAMA,
    "mistral": _LLAMA,
    "qwen2": _LLAMA,
    "qwen3": _LLAMA,
    "gpt_neox": {"hidden_size": 24, "intermediate_size": 50, "num_hidden_layers": 2, "num_attention_heads": 2},
    "t5": {"d_model": 24, "d_ff": 40, "d_kv": 6, "num_layers": 2, "num_heads": 4},
}
"""What a published configuration always says; all else may be left out where it is the architecture's default."""

# An ellipsis takes a key away: some publish a size under another name.
VARIANTS: list[tuple[str, dict[str, Any]]] = [
    *((model_type, {}) for model_type in SIZES),
    # transformers takes this key of a T5 for another one, and lets the weights decide.
    *((model_type, {"tie_word_embeddings": tied}) for model_type in SIZES for tied in (True, False) if model_type != "t5"),
    ("bloom", {"n_layer": ..., "num_hidden_layers": 3}),
    ("bloom", {"hidden_size": ..., "n_embed": 36}),
    ("falcon", {"bias": True}),
    ("falcon", {"alibi": True, "multi_query": False}),
    ("falcon", {"multi_query": False, "num_kv_heads": 6}),
    ("falcon", {"parallel_attn": False}),
    ("falcon", {"num_ln_in_parallel_attn": 2}),
    ("falcon", {"new_decoder_architecture": True}),
    ("falcon", {"new_decoder_architecture": True, "num_ln_in_parallel_attn": 1, "num_kv_heads": 2}),
    ("falcon", {"new_decoder_architecture": True, "parallel_attn": False, "bias": True}),
    ("falcon", {"ffn_hidden_size": 50}),
    ("gpt2", {"n_inner": 30}),
    ("gpt2", {"n_embd": ..., "hidden_size": 36}),
    ("llama", {"attention_bias": True}),
    ("llama", {"mlp_bias": True, "num_key_value_heads": 4}),
    ("llama", {"head_dim": 10, "num_key_value_heads": 2}),
    ("mistral", {"head_dim": 4}),
    ("qwen2", {"num_key_value_heads": None}),
    ("qwen2", {"num_key_value_heads": 16}),
    ("qwen3", {"num_key_value_heads": 4, "head_dim": 6}),
    ("qwen3", {"attention_bias": True}),
    ("gpt_neox", {"use_parallel_residual": False}),
    ("gpt_neox", {"attention_bias": False}),
    ("t5", {"feed_forward_proj": "gated-gelu"}),
    ("t5", {"num_decoder_layers": 3, "d_kv": 10}),
]


def real(config: Any) -> Any:
    """The real module of CONFIG, without memory for its weights."""
    with torch.device("meta"):
        model = auto_class(config).from_config(config, dtype=torch.float32)
    model.tie_weights()
    return model


def fresh(architecture: Any) -> Any:
    """The real model of ARCHITECTURE, with random weights."""
    config = architecture.config(VOCABULARY, 0, 1)
    return auto_class(config).from_config(config)


def layers(model: Model) -> dict[str, tuple[int, int, bool]]:
    """Every linear layer by its full name: inputs, outputs, and whether it has a bias."""
    named = {f"{s.prefix}.{number}.{layer.name}": layer for s in model.stacks for number in range(s.layers) for layer in s.block}
    assert tuple(named) == model.names[:-1]
    return {name: (layer.inputs, layer.outputs, layer.bias) for name, layer in (named | {model.head.name: model.head}).items()}


def real_layers(model: Any) -> dict[str, tuple[int, int, bool]]:
    found = {}
    for name, layer in linear_layers(model).items():
        shape = layer.weight.shape if type(layer).__name__ == "Conv1D" else layer.weight.shape[::-1]
        found[name] = (*shape, layer.bias is not None)
    return found


def check(config: Any, size: Model | None) -> None:
    """SIZE says of a model just what the real one of CONFIG has."""
    assert size is not None
    model = real(config)
    assert size.parameters == count_parameters(model)
    assert layers(size) == real_layers(model)
    assert size.largest == max(
        sum(weight.numel() for weight in module.parameters(recurse=False)) for name, module in model.named_modules() if "wpe" not in name
    )


def test_every_member_of_the_families_is_tried():
    union = get_args(get_args(Architecture)[0])
    assert {type(architecture) for architecture in ARCHITECTURES.values()} == set(union)
    assert {type(method) for method in METHODS} == set(get_args(get_args(Method)[0]))


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_spec_alone_gives_the_sizes_of_the_real_model(name):
    architecture = ARCHITECTURES[name]
    config = architecture.config(VOCABULARY, 0, 1)
    derived = configuration(architecture, VOCABULARY)
    assert derived is not None
    written = config.to_dict()
    assert {key: written[key] for key in derived} == derived
    assert model_of(derived) == model_of(written)
    check(config, model_of(derived))


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("method", METHODS, ids=str)
def test_trainable_parameters_are_those_of_the_prepared_model(tmp_path, name, method):
    architecture = ARCHITECTURES[name]
    size = model_of(configuration(architecture, VOCABULARY) or {})
    assert size is not None
    counted = counts(size, method)
    model = method.prepare(fresh(architecture))
    assert counted is not None
    assert counted.trained == count_parameters(model, trainable=True)
    assert size.parameters + counted.added == count_parameters(model)
    method.save(model, tmp_path)
    saved = [load_file(file) for file in tmp_path.glob("*.safetensors")]
    assert counted.saved == sum(tensor.numel() for tensors in saved for tensor in tensors.values())


NAMES = {
    "bloom": [("dense",), ("query_key_value", "mlp.dense_h_to_4h")],
    "falcon": [("dense",), ("query_key_value", "lm_head"), ("transformer.h.0.mlp.dense_4h_to_h", "h.1.self_attention.dense")],
    "gpt2": [("c_proj",), ("attn.c_proj",), ("c_attn", "lm_head"), ("1.mlp.c_proj", "h.1.mlp.c_proj", "c_fc")],
    "llama": [("q_proj", "v_proj"), ("o_proj", "self_attn.o_proj"), ("layers.1.mlp.down_proj", "01.mlp.up_proj", "0.mlp.up_proj")],
}


@pytest.mark.parametrize(("name", "names"), [(name, names) for name, several in NAMES.items() for names in several])
def test_named_layers_are_chosen_as_peft_chooses_them(name, names):
    from peft import LoraConfig, get_peft_model

    architecture = ARCHITECTURES[name]
    size = model_of(configuration(architecture, VOCABULARY) or {})
    assert size is not None
    model = fresh(architecture)
    adapted = get_peft_model(model, LoraConfig(r=3, target_modules=list(names), fan_in_fan_out=name == "gpt2"))
    updates = [module for path, module in adapted.named_modules() if path.endswith("lora_A.default")]
    assert sum(count for _, count in targets(size, names)) == len(updates) > 0
    assert trainable_parameters(size, Lora(r=3, target_modules=names)) == count_parameters(adapted, trainable=True)


def test_names_that_match_nothing_give_no_number():
    size = model_of(configuration(Falcon(**SMALL), VOCABULARY) or {})
    assert size is not None
    for names in [
        (),
        ("",),
        ("ense",),
        ("7.mlp.dense_4h_to_h",),
        ("x.0.mlp.dense_4h_to_h",),
        ("٠.mlp.dense_4h_to_h",),
        ("word_embeddings",),
    ]:
        assert trainable_parameters(size, Lora(target_modules=names)) is None, names


@pytest.mark.parametrize(("model_type", "more"), VARIANTS, ids=str)
def test_published_configurations_give_the_sizes_of_the_real_model(model_type, more):
    given = {key: value for key, value in ({"vocab_size": 50} | SIZES[model_type] | more).items() if value is not ...}
    config = AutoConfig.for_model(model_type, **given)
    check(config, model_of(config.to_dict()))
    assert model_of({"model_type": model_type, **given}) == model_of(config.to_dict())


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_any_sizes_give_the_parameters_of_the_real_model(data):
    heads = data.draw(st.sampled_from([1, 2, 3, 4, 6]))
    shape = {"heads": heads, "hidden_size": heads * 2 * data.draw(st.integers(1, 5)), "layers": data.draw(st.integers(1, 3))}
    kv_heads = data.draw(st.sampled_from([None, *(count for count in range(1, heads + 1) if heads % count == 0)]))
    options: dict[type[Part], dict[str, Any]] = {Bloom: {}, Gpt2: {}, Falcon: {"kv_heads": kv_heads}, Llama: {"kv_heads": kv_heads}}
    member = data.draw(st.sampled_from(list(options)))
    architecture = member(**shape, **options[member], max_length=data.draw(st.integers(2, 50)))
    vocabulary = data.draw(st.integers(2, 500))
    check(architecture.config(vocabulary, 0, 1), model_of(configuration(architecture, vocabulary) or {}))


def test_a_t5_that_has_an_output_layer_of_its_own_keeps_it_as_its_configuration_says(tmp_path):
    values = {"vocab_size": 50, **SIZES["t5"], "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}
    model = auto_class(config := AutoConfig.for_model("t5", **values)).from_config(config)
    save_model(model, tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    save_file(weights | {"lm_head.weight": weights["shared.weight"] * 2}, tmp_path / "model.safetensors", metadata={"format": "pt"})
    write_json(tmp_path / "config.json", json.loads((tmp_path / "config.json").read_text()) | {"tie_word_embeddings": False})
    size = model_of({"model_type": "t5", **values})
    assert size is not None and size.parameters == count_parameters(load_model(tmp_path))


PUBLISHED = {
    # As their authors or the hub's file listings count them.
    "gpt2": (124_439_808, {"model_type": "gpt2", "vocab_size": 50257, "n_embd": 768, "n_layer": 12, "n_head": 12, "n_positions": 1024}),
    "bloom": (176_247_271_424, {"model_type": "bloom", "vocab_size": 250880, "n_embed": 14336, "n_layer": 70, "num_attention_heads": 112}),
    "llama-2-7b": (
        6_738_415_616,
        {
            "model_type": "llama",
            "vocab_size": 32000,
            "hidden_size": 4096,
            "intermediate_size": 11008,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
        },
    ),
    "mistral-7b": (
        7_241_732_096,
        {
            "model_type": "mistral",
            "vocab_size": 32000,
            "hidden_size": 4096,
            "intermediate_size": 14336,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
        },
    ),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_models_have_their_published_size(name):
    parameters, config = PUBLISHED[name]
    size = model_of(config)
    assert size is not None and size.parameters == parameters


@pytest.mark.parametrize(
    "config", [{}, {"model_type": "opt"}, {"model_type": "llama"}, {"model_type": ["llama"]}, {"model_type": None}], ids=str
)
def test_what_is_not_known_gives_nothing(config):
    assert model_of(config) is None


def test_models_with_parts_that_are_not_counted_give_nothing():
    config = {"model_type": "gpt2", "vocab_size": 50, **SIZES["gpt2"]}
    assert model_of(config) is not None and model_of(config | {"add_cross_attention": True}) is None


def test_an_architecture_that_is_not_known_gives_no_configuration():
    assert configuration(Full(), 300) is None
    size = model_of(configuration(Falcon(), 300) or {})
    assert size is not None and trainable_parameters(size, Falcon()) is None


JSON = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=3) | st.lists(st.integers(), max_size=2)


@given(st.sampled_from(list(SIZES)), st.data())
def test_any_configuration_is_counted_or_refused_without_an_error(model_type, data):
    config = {"model_type": model_type, "vocab_size": 50, **SIZES[model_type]}
    key = data.draw(st.sampled_from([*config, "head_dim", "num_kv_heads", "bias", "tie_word_embeddings", "num_key_value_heads"]))
    size = model_of(config | {key: data.draw(JSON)})
    assert size is None or size.parameters > 0
