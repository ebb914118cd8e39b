"""The implementation of attention is chosen, told where it is not the one asked for, and does not change what a model says."""

import pytest
import torch

from stages.models.attention import Choice, choose, say
from stages.models.folders import auto_class, load_model, model_class
from tests.stages.train.matrix import FAMILIES, VOCABULARY, answer, folder_of, train


def class_of(family):
    return model_class(FAMILIES[family].config(VOCABULARY, 0, 1))


@pytest.mark.parametrize(("family", "expected"), [("Llama", "sdpa"), ("Falcon (7B's layer)", "sdpa"), ("T5", "sdpa"), ("Bloom", "eager")])
def test_auto_takes_the_fastest_that_is_there(family, expected):
    assert choose("auto", class_of(family), "float32") == Choice(expected)
    assert load_model(folder_of(family)).config._attn_implementation == expected


@pytest.mark.parametrize(
    ("asked", "family", "used", "reason"),
    [
        ("sdpa", "Bloom", "eager", "is not available for BloomForCausalLM"),
        ("flex", "GPT-2", "sdpa", "is not available for GPT2LMHeadModel"),
        ("flash_attention_2", "Llama", "sdpa", "needs a GPU"),
        ("flash_attention_3", "T5", "sdpa", "is not available for T5ForConditionalGeneration"),
    ],
)
@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU has what the CPU has not")
def test_another_one_is_used_and_that_is_said(capsys, asked, family, used, reason):
    chosen = choose(asked, class_of(family), "bfloat16")
    say(chosen)
    assert chosen.implementation == used and asked in capsys.readouterr().err and reason in str(chosen.reason)


def test_nothing_is_said_where_it_is_what_was_asked(capsys):
    say(choose("sdpa", class_of("Llama"), "float32"))
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("family", [name for name in FAMILIES if name != "Bloom"])
def test_eager_and_sdpa_say_the_same(family):
    one, other = (answer(load_model(folder_of(family), attention=attention)) for attention in ("eager", "sdpa"))
    torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


def test_flash_needs_numbers_of_16_bits(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr("transformers.utils.is_flash_attn_2_available", lambda: True)
    monkeypatch.setattr("transformers.utils.is_flash_attn_3_available", lambda: False)
    llama = class_of("Llama")
    assert choose("flash_attention_2", llama, "bfloat16") == Choice("flash_attention_2") == choose("auto", llama, "bfloat16")
    assert "needs 16-bit weights" in str(choose("flash_attention_2", llama, "float32").reason)
    assert choose("auto", llama, "float32") == Choice("sdpa")
    assert "is not installed" in str(choose("flash_attention_3", llama, "bfloat16").reason)


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU has what the CPU has not")
def test_flex_has_really_no_backward_pass_on_the_cpu(monkeypatch):
    assert choose("flex", class_of("Llama"), "float32").reason == "flex attention has no backward pass on the CPU"
    monkeypatch.setattr("stages.models.attention._has_gpu", lambda: True)
    model = load_model(folder_of("Llama"), attention="flex")
    assert model.config._attn_implementation == "flex_attention"
    with pytest.raises(NotImplementedError, match="does not support backward on CPU"):
        train(model)


def test_the_right_sort_of_model_is_loaded():
    assert auto_class(FAMILIES["T5"].config(9, 0, 1)).__name__ == "AutoModelForSeq2SeqLM"
    assert load_model(folder_of("T5")).config.is_encoder_decoder
    assert train(load_model(folder_of("Llama"), attention="eager"))[-1] > 0
