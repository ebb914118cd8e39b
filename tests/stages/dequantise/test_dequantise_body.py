"""GGUF files become folders that transformers loads with the same weights and the same tokens."""

import json
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from tokenizers import Tokenizer
from tokenizers.pre_tokenizers import ByteLevel, Digits, Sequence

from benchmarks.common import REAL_MODEL
from engine.core.errors import UserError
from stages.dequantise import Parameters
from stages.dequantise.body import run
from stages.process.job import Job
from stages.tokens.pre_tokenizers import set_rules
from tests.support.gguf_files import TEMPLATE, TEXTS, tiny_model, tiny_tokenizer, write_gguf

SHARED = Path(__file__).parents[4] / "shared/tokenizers"
DIGITS = Sequence([Digits(individual_digits=True), ByteLevel(add_prefix_space=False)])


def dequantised(file: Path, folder: Path, **parameters: str) -> Path:
    output, scratch = folder / "output", folder / "scratch"
    for path in (output, scratch):
        path.mkdir(parents=True)
    run(Parameters(**parameters), Job("dequantise-tiny", {"gguf": file}, output, None, scratch))
    return output


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("gguf")
    tokenizer = tiny_tokenizer(DIGITS)
    model = tiny_model(tokenizer.get_vocab_size())
    return model, tokenizer, dequantised(write_gguf(folder / "tiny.F32.gguf", model, tokenizer), folder)


def test_float32_weights_come_out_to_the_bit(made):
    model, _, folder = made
    before, after = model.state_dict(), load_file(folder / "model.safetensors")
    assert {name for name in before if name != "lm_head.weight"} == set(after)
    assert all(before[name].equal(weight) for name, weight in after.items())


def test_transformers_loads_the_folder_as_an_ordinary_model_that_gives_the_same_logits(made):
    import torch
    from transformers import AutoModelForCausalLM

    model, tokenizer, folder = made
    loaded = AutoModelForCausalLM.from_pretrained(folder).eval()
    ids = torch.tensor([tokenizer.encode(TEXTS[0]).ids])
    assert torch.equal(loaded(ids).logits, model(ids).logits)
    config = json.loads((folder / "config.json").read_text())
    assert "quantization_config" not in config and config["eos_token_id"] == 2


@settings(deadline=None, max_examples=200)
@given(st.text(max_size=60) | st.sampled_from([*TEXTS, "<|im_start|>user\n12 + 345<|im_end|>"]))
def test_every_text_gets_the_tokens_of_the_tokenizer_before(made, text: str):
    _, tokenizer, folder = made
    written = Tokenizer.from_file(str(folder / "tokenizer.json"))
    assert written.encode(text, add_special_tokens=False).ids == tokenizer.encode(text, add_special_tokens=False).ids


def test_the_chat_template_and_the_special_tokens_are_those_of_the_file(made):
    config = json.loads((made[2] / "tokenizer_config.json").read_text())
    assert config["chat_template"] == TEMPLATE and config["model_max_length"] == 256
    assert (config["bos_token"], config["eos_token"], config["pad_token"]) == ("<|im_start|>", "<|im_end|>", "<|im_end|>")


@pytest.mark.parametrize("kind", ["F16", "Q8_0", "Q4_1"])
def test_quantised_weights_are_those_that_the_file_stands_for(made, tmp_path: Path, kind: str):
    import gguf

    model, tokenizer, _ = made
    found = load_file(dequantised(write_gguf(tmp_path / "tiny.gguf", model, tokenizer, quantised=kind), tmp_path) / "model.safetensors")
    weight = model.state_dict()["model.layers.0.mlp.up_proj.weight"].numpy()
    expected = gguf.quants.dequantize(gguf.quants.quantize(weight, gguf.GGMLQuantizationType[kind]), gguf.GGMLQuantizationType[kind])
    assert (found["model.layers.0.mlp.up_proj.weight"].numpy() == expected).all()


def test_weights_are_rounded_where_the_spec_says_so(made, tmp_path: Path):
    import torch

    model, tokenizer, _ = made
    folder = dequantised(write_gguf(tmp_path / "tiny.gguf", model, tokenizer), tmp_path, dtype="bfloat16")
    weight = load_file(folder / "model.safetensors")["model.norm.weight"]
    assert weight.dtype == torch.bfloat16 and json.loads((folder / "config.json").read_text())["dtype"] == "bfloat16"


@pytest.mark.parametrize("content", [b"", b"GGML", b"GGUF", b"GGUF\x03\0\0\0\xff"])
def test_a_file_that_is_none_is_refused_with_its_name(tmp_path: Path, content: bytes):
    file = tmp_path / "broken.gguf"
    file.write_bytes(content)
    with pytest.raises(UserError, match="GGUF") as error:
        dequantised(file, tmp_path)
    assert error.value.problems[0].where.file.endswith("broken.gguf")


def test_half_a_file_is_refused(made, tmp_path: Path):
    file = write_gguf(tmp_path / "tiny.gguf", made[0], made[1])
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(UserError, match="GGUF"):
        dequantised(file, tmp_path)


def test_a_pre_tokenizer_that_is_not_known_is_refused_not_guessed(made, tmp_path: Path):
    with pytest.raises(UserError, match="unknown pre-tokenizer 'brand-new'"):
        dequantised(write_gguf(tmp_path / "tiny.gguf", made[0], made[1], pre="brand-new"), tmp_path)


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared tokenizers are not here")
def test_the_rules_named_qwen2_are_those_of_qwens_own_tokenizer():
    own, ours = (Tokenizer.from_file(str(SHARED / "qwen3/tokenizer.json")) for _ in range(2))
    set_rules(ours, "qwen2", Path("x.gguf"))
    for text in [*TEXTS, "e\u0301 \u4f60\u597d 12345 it's  \n\n x"]:
        assert ours.encode(text).ids == own.encode(text).ids


def test_the_rules_named_llama_bpe_split_as_llama_3_does():
    tokenizer = tiny_tokenizer(DIGITS)
    set_rules(tokenizer, "llama-bpe", Path("x.gguf"))
    pieces = [piece for piece, _ in tokenizer.pre_tokenizer.pre_tokenize_str("We've 12345\n\n  x")]
    assert pieces == ["We", "'ve", "Ġ", "123", "45", "ĊĊ", "Ġ", "Ġx"]


@pytest.mark.real
def test_the_real_model_knows_the_capital_of_france(tmp_path: Path):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = dequantised(REAL_MODEL, tmp_path)
    os.environ["HF_HUB_OFFLINE"] = "1"
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
    asked = [{"role": "user", "content": "What is the capital of France?"}]
    ids = tokenizer.apply_chat_template(asked, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    with torch.inference_mode():
        said = model.generate(**ids, max_new_tokens=12, do_sample=False)[0, ids["input_ids"].shape[1] :]
    assert tokenizer.decode(said, skip_special_tokens=True) == "The capital of France is Paris."
