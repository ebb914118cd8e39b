"""Tokens of the spec's own: added to the tokenizer, given embeddings, learned, saved with the adapter, and found again."""

import json

import numpy as np
import pytest
import torch

from stages.models.added_tokens import extend, new_token_ids, trainable_tokens
from stages.models.folders import load_adapter, load_model, load_tokenizer
from stages.process.job import Job
from stages.tokens.encoder import Encoder
from stages.train.methods.lora import Lora
from stages.vocabulary import Parameters
from stages.vocabulary.body import run
from tests.stages.initialize.tiny import make_model

TOKENS = ("<|human|>", "<|bot|>")


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return make_model(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def made(tmp_path_factory, base):
    """The step's metrics and its folder."""
    output = tmp_path_factory.mktemp("vocabulary")
    files = {f"tokenizer/{name}": base / name for name in ("tokenizer.json", "tokenizer_config.json")}
    return run(Parameters(special_tokens=TOKENS), Job("vocabulary-x", files, output, None, output)), output


def test_tokens_are_added_behind_the_others(base, made):
    metrics, folder = made
    before, after = load_tokenizer(base).encoder, load_tokenizer(folder).encoder
    new = json.loads((folder / "new_tokens.json").read_text())
    assert metrics == {"tokens_before": before.size(), "added": 2, "already_there": 0}
    assert new == {token: before.size() + number for number, token in enumerate(TOKENS)} and after.size() == before.size() + 2
    text = "say<|human|>red <|bot|> x"
    (ids,) = after.encode([text])
    assert [token for token in ids if token in new.values()] == sorted(new.values()) and after.decode([ids]) == [text] and after.lossless


def test_a_token_that_is_there_is_not_added_twice(tmp_path, made):
    _, folder = made
    files = {f"tokenizer/{name}": folder / name for name in ("tokenizer.json", "tokenizer_config.json")}
    metrics = run(Parameters(special_tokens=(*TOKENS, "<|tool|>")), Job("vocabulary-y", files, tmp_path, None, tmp_path))
    assert (metrics["added"], metrics["already_there"]) == (1, 2) and list(json.loads((tmp_path / "new_tokens.json").read_text())) == [
        "<|tool|>"
    ]


def test_new_embeddings_begin_as_the_mean_of_the_others(base, made):
    model = load_model(base)
    before = model.get_input_embeddings().weight.detach().clone()
    extend(model, made[1])
    after = model.get_input_embeddings().weight.detach()
    ids = new_token_ids(model)
    assert torch.equal(after[: len(before)], before) and len(after) == len(before) + 2 == ids[-1] + 1
    assert torch.allclose(after[ids], before.mean(dim=0).expand(2, -1)) and model.config.vocab_size == len(after)


def test_nothing_is_new_without_such_a_step(base):
    assert trainable_tokens(load_model(base)) is None


@pytest.mark.parametrize("architecture", ["falcon", "llama"])
def test_new_rows_are_learned_saved_and_loaded_with_the_adapter(tmp_path, tmp_path_factory, architecture):
    folder, output = make_model(tmp_path_factory.mktemp(architecture), architecture), tmp_path / "vocabulary"
    output.mkdir()
    files = {f"tokenizer/{name}": folder / name for name in ("tokenizer.json", "tokenizer_config.json")}
    run(Parameters(special_tokens=TOKENS), Job("vocabulary-x", files, output, None, output))

    def opened():
        model = load_model(folder)
        extend(model, output)
        return model

    torch.manual_seed(0)
    method, base = Lora(r=2), opened()
    ids, size = new_token_ids(base), base.config.vocab_size
    first = base.get_input_embeddings().weight.detach().clone()
    model = method.prepare(base)
    rows = torch.tensor([[ids[0], 40, 41, ids[1], 42]])
    optimizer = torch.optim.SGD([weight for weight in model.parameters() if weight.requires_grad], lr=1.0)
    model(input_ids=rows, labels=rows).loss.backward()
    optimizer.step()
    model.eval()
    (tmp_path / "adapter").mkdir()
    method.save(model, tmp_path / "adapter")
    with torch.no_grad():
        expected = model(input_ids=rows).logits
        again = load_adapter(opened(), tmp_path / "adapter")
        assert torch.equal(again(input_ids=rows).logits, expected) and expected.shape[-1] == size
        untrained = opened()(input_ids=rows).logits
    assert not torch.allclose(untrained, expected)
    merged = again.merge_and_unload().get_input_embeddings().weight.detach()
    moved = np.flatnonzero((merged != first).any(dim=1).numpy())
    # The rows of the new tokens, and no other.
    assert moved.tolist() == ids


def test_the_files_are_those_that_an_encoder_opens(made):
    folder = made[1]
    assert {path.name for path in folder.iterdir()} == {"tokenizer.json", "tokenizer_config.json", "new_tokens.json"}
    Encoder.open({name: folder / name for name in ("tokenizer.json", "tokenizer_config.json")})
