"""Tokenizers from their files: the end token, what is switched off, and who must be lossless."""

import json

import pytest
from tokenizers import AddedToken, decoders, normalizers, pre_tokenizers, processors

from engine.core.errors import UserError
from tests.stages.tokenize.conftest import EOS, byte_level, encoder_of, normalizing, opened, save


def test_the_end_token_is_text_or_an_object(tmp_path, encoder):
    assert opened(byte_level(), tmp_path, {"eos_token": {"content": EOS, "lstrip": False}}).eos_id == encoder.eos_id
    assert encoder.eos == EOS and encoder.tokenizer.id_to_token(encoder.eos_id) == EOS


@pytest.mark.parametrize("config", [{}, {"eos_token": None}, {"eos_token": ""}, {"eos_token": {"content": None}}])
def test_no_end_token_is_the_users_error(tmp_path, config):
    with pytest.raises(UserError, match="has no eos_token") as caught:
        opened(byte_level(), tmp_path, config)
    found = caught.value.problems[0]
    assert "never learns to stop" in found.hint and found.where.file.endswith("tokenizer_config.json")


def test_an_end_token_of_another_model_is_the_users_error(tmp_path):
    with pytest.raises(UserError, match="'</s>' is not a token of tokenizer"):
        opened(byte_level(), tmp_path, {"eos_token": "</s>"})


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json"])
def test_a_broken_file_is_the_users_error(tmp_path, name):
    paths = save(byte_level(), tmp_path)
    (tmp_path / name).write_text('{"x": ')
    with pytest.raises(UserError, match="this file") as caught:
        encoder_of(paths)
    assert caught.value.problems[0].where.file == str(tmp_path / name)


def test_limits_padding_and_templates_of_the_file_are_switched_off(tmp_path):
    tokenizer = byte_level()
    tokenizer.enable_truncation(3)
    tokenizer.enable_padding(length=50)
    tokenizer.post_processor = processors.TemplateProcessing(single=f"$A {EOS}", special_tokens=[(EOS, tokenizer.token_to_id(EOS))])
    text = "The quick brown fox jumps"
    (ids,) = opened(tokenizer, tmp_path).encode([text])
    assert 3 < len(ids) < 50 and tokenizer.token_to_id(EOS) not in ids and tokenizer.decode(ids) == text


def test_no_texts_are_no_rows(encoder):
    assert encoder.encode([]) == [] and encoder.decode([]) == [] and encoder.encode([""]) == [[]]


def changed(change):
    tokenizer = byte_level()
    change(tokenizer)
    return tokenizer


def falcon_like(tokenizer):
    splits = [pre_tokenizers.Punctuation("contiguous"), pre_tokenizers.ByteLevel(add_prefix_space=False), pre_tokenizers.Digits()]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(splits)


def test_byte_level_tokenizers_are_lossless(tmp_path, encoder):
    assert encoder.lossless and opened(changed(falcon_like), tmp_path).lossless


@pytest.mark.parametrize(
    "change",
    [
        lambda t: setattr(t, "normalizer", normalizers.NFC()),
        lambda t: setattr(t, "pre_tokenizer", pre_tokenizers.ByteLevel(add_prefix_space=True)),
        lambda t: setattr(t, "pre_tokenizer", pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), t.pre_tokenizer])),
        lambda t: setattr(t, "pre_tokenizer", pre_tokenizers.Sequence([pre_tokenizers.Split(" ", "removed"), t.pre_tokenizer])),
        lambda t: setattr(t, "decoder", decoders.Sequence([decoders.ByteLevel(), decoders.Strip(" ", 1, 0)])),
        lambda t: t.add_tokens([AddedToken("<mask>", lstrip=True)]),
    ],
    ids=["normalizer", "prefix space", "white space", "removing split", "strip", "greedy token"],
)
def test_what_changes_text_is_not_lossless(tmp_path, change):
    assert not opened(changed(change), tmp_path).lossless


def test_other_tokenizers_are_not_lossless(tmp_path):
    assert not opened(normalizing(), tmp_path).lossless


def test_the_files_are_only_read(tmp_path):
    paths = save(byte_level(), tmp_path)
    before = [json.loads(path.read_text()) for path in paths.values()]
    encoder_of(paths).encode(["x"])
    assert [json.loads(path.read_text()) for path in paths.values()] == before
