"""Methods refuse layers that do not fit, and save what peft and transformers load."""

import json

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file

from engine.core.errors import UserError
from stages.models.folders import count_parameters, load_adapter, load_model
from stages.models.layers import linear_layers
from stages.train.methods import Full, Lora
from tests.stages.initialize.tiny import ARCHITECTURES, contents, make_model
from tests.stages.train.matrix import folder_of

IDS = torch.tensor([[5, 6, 7, 8, 9]])


def logits(model):
    model.eval()
    with torch.no_grad():
        return model(IDS).logits


def disturbed(model):
    """Updates start as zeros; a test on zeros could not fail."""
    torch.manual_seed(1)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight)
    return model


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_saved_adapter_gives_the_same_logits_on_every_architecture(tmp_path, architecture):
    folder = make_model(tmp_path / "model", architecture)
    model = disturbed(Lora(r=4).prepare(load_model(folder)))
    (tmp_path / "adapter").mkdir()
    Lora(r=4).save(model, tmp_path / "adapter")
    again = PeftModel.from_pretrained(load_model(folder), tmp_path / "adapter", local_files_only=True)
    assert torch.equal(logits(again), logits(model))
    assert not torch.allclose(logits(model), logits(load_model(folder)))


def test_the_weights_of_an_adapter_are_two_files_without_paths_or_versions(tmp_path, falcon):
    Lora(r=4).save(Lora(r=4).prepare(load_model(falcon)), tmp_path)
    files = contents(tmp_path)
    config = json.loads(files["adapter_config.json"])
    assert set(files) == {"adapter_config.json", "adapter_model.safetensors"}
    assert config["base_model_name_or_path"] is None and "peft_version" not in config
    assert list(config) == sorted(config) and config["target_modules"] == sorted(config["target_modules"])
    assert config["inference_mode"] is True


def test_all_linear_leaves_the_output_layer_alone(falcon):
    model = Lora(r=4).prepare(load_model(falcon))
    trained = {name for name, weight in model.named_parameters() if weight.requires_grad}
    assert trained and all("lora_" in name for name in trained) and not any("lm_head" in name for name in trained)
    assert sum("lora_A" in name for name in trained) == len(linear_layers(load_model(falcon))) - 1


def test_named_layers_alone_get_an_update(falcon):
    model = Lora(r=4, target_modules=("query_key_value",)).prepare(load_model(falcon))
    assert {name.split(".")[-4] for name, weight in model.named_parameters() if weight.requires_grad} == {"query_key_value"}
    assert count_parameters(model, trainable=True) == sum(w.numel() for n, w in model.named_parameters() if "lora_" in n)


def test_a_name_that_matches_nothing_is_refused_although_another_matches(falcon):
    with pytest.raises(UserError) as caught:
        Lora(r=4, target_modules=("dense", "query_key_valu")).prepare(load_model(falcon))
    hint = caught.value.problems[0].hint
    assert "did you mean 'query_key_value'?" in hint and "dense_4h_to_h" in hint


def test_no_names_at_all_are_refused(falcon):
    with pytest.raises(UserError, match="target_modules is empty"):
        Lora(r=4, target_modules=()).prepare(load_model(falcon))


def test_a_rank_above_the_smaller_side_is_refused(falcon):
    Lora(r=32).prepare(load_model(falcon))
    with pytest.raises(UserError, match="is not a low rank for") as caught:
        Lora(r=33).prepare(load_model(falcon))
    assert "at most 32" in caught.value.problems[0].hint


def test_full_trains_everything_and_saves_a_model(tmp_path, falcon):
    model = Full().prepare(load_model(falcon))
    assert count_parameters(model, trainable=True) == count_parameters(model)
    Full().save(model, tmp_path)
    assert contents(tmp_path) == {name: data for name, data in contents(falcon).items() if not name.startswith("tokenizer")}


def test_an_adapter_for_another_model_is_refused(tmp_path, falcon):
    (tmp_path / "adapter").mkdir()
    Lora(r=4).save(Lora(r=4).prepare(load_model(falcon)), tmp_path / "adapter")
    other = load_model(make_model(tmp_path / "other", "falcon", hidden_size=48))
    with pytest.raises(UserError, match="cannot load the adapter"):
        load_adapter(other, tmp_path / "adapter")


def test_a_folder_without_adapter_is_refused(tmp_path, falcon):
    with pytest.raises(UserError, match=r"adapter_config\.json is missing"):
        load_adapter(load_model(falcon), tmp_path)


def as_vllm_reads(folder):
    """What vLLM asks of an adapter's folder (`PEFTHelper` and `parse_fine_tuned_lora_name`, vLLM 0.8): the reasons to refuse it."""
    config = json.loads((folder / "adapter_config.json").read_text())
    wrong = [f"no {name}" for name in ("r", "lora_alpha", "target_modules") if name not in config]
    wrong += ["modules_to_save"] * bool(config.get("modules_to_save")) + ["DoRA"] * bool(config.get("use_dora"))
    wrong += ["bias"] * (config.get("bias", "none") != "none")
    assert isinstance(config["r"], int) and isinstance(config["target_modules"], list)
    for name, weight in load_file(folder / "adapter_model.safetensors").items():
        *module, side, last = name.removeprefix("base_model.model.").split(".")
        layer = f".{'.'.join(module)}"
        if not name.startswith("base_model.model.") or last != "weight" or side not in ("lora_A", "lora_B"):
            wrong.append(name)
        elif not any(layer.endswith(f".{end}") for end in config["target_modules"]) or weight.shape[side == "lora_B"] != config["r"]:
            wrong.append(f"{name} {tuple(weight.shape)}")
    return wrong


@pytest.mark.parametrize(
    ("values", "refused"),
    [
        ({}, False),
        ({"use_rslora": True, "target_modules": ("q_proj", "v_proj")}, False),
        ({"init_lora_weights": "pissa"}, False),
        ({"use_dora": True}, True),
        ({"modules_to_save": ("lm_head",)}, True),
        ({"bias": "lora_only"}, True),
    ],
    ids=str,
)
def test_vllm_is_given_what_it_expects_or_the_docs_say_to_merge(tmp_path, values, refused):
    method = Lora(r=4, **values)
    method.save(disturbed(method.prepare(load_model(folder_of("Llama")))), tmp_path)
    assert bool(as_vllm_reads(tmp_path)) == refused, as_vllm_reads(tmp_path)
