"""Tokenizers that are written in Python: opened through transformers, with the same masks and checks."""

import numpy as np
import pytest

from engine.core.errors import UserError
from stages.tokens.encoder import Encoder
from tests.stages.tokenize.test_masks import spans, tokenize

PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "fox", "jump", "##s", "##er", "over", "."]


def byt5(folder):
    from transformers import ByT5Tokenizer

    ByT5Tokenizer(extra_ids=0).save_pretrained(folder)


def word_piece(folder):
    from transformers import ProphetNetTokenizer

    # The class asks for its vocabulary by this name, and saves it by another.
    vocabulary = folder / "prophetnet.tokenizer"
    vocabulary.write_text("\n".join(PIECES) + "\n")
    ProphetNetTokenizer(str(vocabulary), eos_token="[SEP]", sep_token="[SEP]").save_pretrained(folder)


@pytest.fixture(scope="module", params=[byt5, word_piece])
def slow(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("slow")
    request.param(folder)
    assert not (folder / "tokenizer.json").exists()
    return {f"tokenizer/{path.name}": path for path in folder.iterdir()}


def test_a_row_to_the_token(tmp_path, slow):
    encoder = Encoder.open({name.removeprefix("tokenizer/"): path for name, path in slow.items()})
    counts, tokens = tokenize(tmp_path, slow, [{"prompt": "the fox", "completion": " jumps over"}])
    ids, supervised = tokens.row(0)
    prompt, completion = encoder.encode(["the fox", " jumps over"])
    start = len(ids) - len(completion) - 1
    assert ids.tolist() == [*encoder.prefix, *prompt, *completion, encoder.eos_id]
    assert supervised.tolist() == [0] * start + [1] * (len(completion) + 1)
    assert [span.replace(" ", "") for span in spans(encoder, tokens, 0)] == [f"jumpsover{encoder.eos}"]
    assert counts["completions"] == 1 and np.count_nonzero(ids[supervised == 1] == encoder.eos_id) == 1


def test_a_shift_needs_to_know_where_tokens_lie(tmp_path, slow):
    with pytest.raises(UserError, match="Python tokenizer") as caught:
        tokenize(tmp_path, slow, [{"prompt": "a", "completion": "b"}], boundary="shift")
    assert '"apart"' in caught.value.problems[0].hint


def test_missing_files_are_the_users_error(tmp_path):
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "ProphetNetTokenizer", "eos_token": "[SEP]"}')
    with pytest.raises(UserError, match="cannot load the tokenizer") as caught:
        Encoder.open({"tokenizer_config.json": tmp_path / "tokenizer_config.json"})
    assert "model.tokenizer_files" in caught.value.problems[0].hint
