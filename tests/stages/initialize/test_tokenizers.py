"""Trained tokenizers keep every text, and depend on nothing but the texts."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from stages.initialize.tokenizers import Tokenizer
from stages.initialize.tokenizers.special import EOS, PAD

TEXTS = ["the cat sat on the mat", "the dog sat on the log", "naïve café"] * 3
TRAINED = Tokenizer(vocab_size=280).train(TEXTS)


@given(st.text(st.characters(codec="utf-8")))
@settings(max_examples=100, deadline=None)
def test_every_text_decodes_back_to_itself(text):
    ids = TRAINED.encode(text, add_special_tokens=False).ids
    assert TRAINED.decode(ids, skip_special_tokens=False) == text


def test_vocabulary_has_the_size_asked_for_with_special_tokens_first():
    assert TRAINED.get_vocab_size() == 280
    assert (TRAINED.token_to_id(EOS), TRAINED.token_to_id(PAD)) == (0, 1)


def test_training_again_gives_the_same_tokenizer():
    again = [Tokenizer(vocab_size=280).train(iter(TEXTS)).to_str() for _ in range(5)]
    assert set(again) == {TRAINED.to_str()}


def test_no_text_at_all_leaves_the_bytes():
    assert Tokenizer(vocab_size=280).train([]).get_vocab_size() == 258


def test_special_tokens_are_marked_so():
    added = {token["content"]: token["special"] for token in json.loads(TRAINED.to_str())["added_tokens"]}
    assert added == {EOS: True, PAD: True}


def test_a_vocabulary_too_small_for_the_bytes_is_refused():
    with pytest.raises(ValidationError):
        Tokenizer(vocab_size=257)


def test_a_begin_token_is_one_token_wherever_it_stands():
    bpe = Tokenizer(vocab_size=280, bos="<s>")
    trained = bpe.train(["answer:<s> yes"] * 3)
    ids = trained.encode("answer:<s> yes", add_special_tokens=False)
    assert trained.token_to_id("<s>") == 2 and ids.tokens.count("<s>") == 1
    assert trained.get_vocab_size() <= 280 and bpe.special_tokens == [EOS, PAD, "<s>"]


@pytest.mark.parametrize("values", [{"bos": EOS}, {"bos": PAD}, {"bos": "<s>", "vocab_size": 258}, {"bos": ""}])
def test_a_begin_token_that_cannot_be_is_refused(values):
    with pytest.raises(ValidationError):
        Tokenizer(**values)
