"""Predictions of supervised tokens are the whole model's, however few positions its output layer computes."""

import pytest
import torch
from torch.nn.functional import cross_entropy

from stages.models import projection
from stages.models.projection import predictions
from stages.train.loop.dropout import RowDropout, install
from stages.train.methods import Lora
from tests.stages.train.matrix import FAMILIES, METHODS, TRAINS, VARIANTS, VOCABULARY, outcome, prepared

LABELS = torch.tensor([[-100, -100, 7, 8, -100, 10], [-100, 5, -100, -100, -100, -100], [-100] * 6])
IDS = torch.tensor([[5, 6, 7, 8, 9, 10], [4, 5, 6, 0, 0, 0], [3, 4, 5, 6, 0, 0]])
TAKEN = 4
METHOD_CASES = [(method, "Llama") for method in METHODS] + [("lora, output layer in full", "Qwen2")]
CASES = METHOD_CASES + [("lora", family) for family in FAMILIES if family != "Llama"]


def given(family: str) -> dict[str, torch.Tensor]:
    """Rows that are padded on the right; an encoder-decoder reads and answers the same tokens."""
    inputs = {"input_ids": IDS, "attention_mask": (IDS > 0).long()}
    return inputs | ({"decoder_input_ids": IDS} if FAMILIES[family].encoder_decoder else {})


def output_layer(model):
    return (model.get_base_model() if hasattr(model, "get_base_model") else model).get_output_embeddings()


def seen_positions(model) -> list[int]:
    """The number of positions of each later call of the output layer."""
    found: list[int] = []
    output_layer(model).register_forward_hook(lambda layer, arguments, output: found.append(output.shape[:-1].numel()))
    return found


def gradients(model, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    model.zero_grad()
    loss.backward()
    return {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}


@pytest.mark.parametrize(("method", "family"), CASES)
def test_logits_and_gradients_are_those_of_every_position(monkeypatch, method, family):
    assert method in VARIANTS or outcome(method, family) == TRAINS
    monkeypatch.setattr(projection, "LARGE", 0)
    model = prepared(family, (METHODS | VARIANTS)[method])
    install(model, 0)
    whole = model(**given(family), use_cache=False).logits[:, -LABELS.shape[1] :][:, :-1][LABELS[:, 1:] >= 0]
    expected = gradients(model, cross_entropy(whole, LABELS[LABELS >= 0]))
    positions = seen_positions(model)
    logits, targets = predictions(model, given(family), LABELS)
    assert positions == [TAKEN] == [len(targets)] and targets.tolist() == [7, 8, 10, 5]
    torch.testing.assert_close(logits, whole.float(), rtol=1e-5, atol=1e-6)
    found = gradients(model, cross_entropy(logits, targets))
    assert found.keys() == expected.keys() and any(gradient.any() for gradient in found.values())
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-4, atol=1e-6)


def test_a_small_output_layer_computes_every_position_as_the_model_itself_does():
    model = prepared("Llama", METHODS["full"])
    positions = seen_positions(model)
    logits, _ = predictions(model, given("Llama"), LABELS)
    assert positions == [IDS.numel()]
    assert torch.equal(logits, model(**given("Llama"), use_cache=False).logits[:, :-1][LABELS[:, 1:] >= 0])


def test_rows_without_supervised_tokens_keep_the_graph_in_which_processes_meet(monkeypatch):
    monkeypatch.setattr(projection, "LARGE", 0)
    model = prepared("Llama", METHODS["full"])
    logits, targets = predictions(model, given("Llama"), torch.full_like(LABELS, -100))
    assert logits.shape == (0, VOCABULARY) and targets.shape == (0,)
    cross_entropy(logits, targets, reduction="sum").backward()
    assert output_layer(model).weight.grad is not None


def test_the_dropout_of_an_adapted_output_layer_falls_on_the_same_positions_as_ever(monkeypatch):
    """Masks are drawn by a token's place in its row, which selected positions no longer have."""
    monkeypatch.setattr(projection, "LARGE", 0)
    model = prepared("Llama", Lora(r=4, lora_dropout=0.5, target_modules=("lm_head",))).train()
    keys = install(model, 0)
    assert any(isinstance(part, RowDropout) and part.p for part in output_layer(model).modules())
    keys.of_batch(torch.arange(3)[:, None].expand(3, 6), torch.arange(6).expand(3, 6), flat=False)
    positions = seen_positions(model)
    predictions(model, given("Llama"), LABELS)
    assert positions == [IDS.numel()]


def test_nothing_of_a_failed_pass_stays_on_the_model(monkeypatch):
    monkeypatch.setattr(projection, "LARGE", 0)
    model = prepared("Llama", METHODS["full"])

    def fails(inputs):
        raise MemoryError("out of memory")

    with pytest.raises(MemoryError):
        predictions(model, given("Llama"), LABELS, fails)
    assert model(**given("Llama")).logits.shape == (*IDS.shape, VOCABULARY)
