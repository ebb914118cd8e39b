"""Masks belong to rows: they are fair, independent, and the same in any micro-batch; a base's own dropout is off."""

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from stages.train.loop.dropout import RowDropout, RowKeys, install, token_numbers
from stages.train.methods import Lora


def kept(positions, tokens=40, features=64, seed=3, layer=0, p=0.25):
    keys = RowKeys(seed)
    keys.set(torch.tensor(positions))
    return RowDropout(p, layer, keys).train()(torch.ones(len(positions), tokens, features)) != 0


def agreement(one, other):
    """Correlation of two masks; the masks of independent draws agree as chance has it."""
    return float(torch.corrcoef(torch.stack([one.flatten().float(), other.flatten().float()]))[0, 1])


@pytest.mark.parametrize("p", [0.05, 0.25, 0.5, 0.9])
def test_the_share_that_is_dropped_is_p_overall_by_token_and_by_feature(p):
    mask = kept(range(200), p=p).float()
    tolerance = 5 * (p * (1 - p)) ** 0.5
    assert float(mask.mean()) == pytest.approx(1 - p, abs=tolerance / mask.numel() ** 0.5)
    for dimension, count in ((2, 64), (1, 40), (0, 200)):
        others = tuple(number for number in range(3) if number != dimension)
        means = mask.mean(dim=others)
        assert float((means - (1 - p)).abs().max()) < tolerance / (mask.numel() / count) ** 0.5


def test_what_is_left_is_scaled_up_and_nothing_happens_outside_of_training():
    keys = RowKeys(0)
    keys.set(torch.arange(50))
    layer = RowDropout(0.5, 0, keys)
    values = torch.rand(50, 20, 32) + 1
    dropped = layer.train()(values)
    assert set(torch.unique((dropped / values).round(decimals=4)).tolist()) == {0.0, 2.0}
    assert layer.eval()(values) is values


def test_neighbours_in_every_direction_are_independent():
    mask = kept(range(300), features=128)
    limit = 5 / mask[1:].numel() ** 0.5
    assert abs(agreement(mask[1:], mask[:-1])) < limit
    assert abs(agreement(mask[:, 1:], mask[:, :-1])) < limit
    assert abs(agreement(mask[..., 1:], mask[..., :-1])) < limit
    for changed in (kept(range(300), features=128, seed=4), kept(range(300), features=128, layer=1), kept(range(300, 600), features=128)):
        assert abs(agreement(mask, changed)) < limit


def test_a_row_loses_the_same_numbers_in_any_company_and_in_a_packed_row():
    whole = kept([7, 8, 9], tokens=12)
    assert torch.equal(kept([9], tokens=12)[0], whole[2])
    assert torch.equal(kept([8], tokens=5)[0], whole[1, :5]), "padding decides nothing"
    keys = RowKeys(3)
    numbers = [token_numbers(torch.full((length,), position), torch.arange(length)) for position, length in ((7, 12), (9, 4))]
    keys.set(None, torch.cat(numbers)[None])
    packed = RowDropout(0.25, 0, keys).train()(torch.ones(1, 16, 64)) != 0
    assert torch.equal(packed[0, :12], whole[0]) and torch.equal(packed[0, 12:], whole[2, :4])


def test_an_adapters_dropout_becomes_one_of_rows_and_the_bases_is_off():
    config = GPT2Config(vocab_size=50, n_positions=16, n_embd=16, n_layer=2, n_head=2, attn_pdrop=0.5, resid_pdrop=0.5, embd_pdrop=0.5)
    model = Lora(r=2, lora_dropout=0.3).prepare(GPT2LMHeadModel(config))
    keys = install(model, 1)
    layers = [module for module in model.modules() if isinstance(module, RowDropout)]
    active = [module for module in layers if module.p]
    assert {module.p for module in active} == {0.3} and len({module.layer for module in active}) == len(active) == 8
    assert not any(isinstance(module, torch.nn.Dropout) for module in model.modules())
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.1)
    model.train()
    ids = torch.randint(0, 50, (4, 9))
    keys.set(torch.arange(4))
    whole = model(ids).logits
    for row in range(4):
        keys.set(torch.tensor([row]))
        torch.testing.assert_close(model(ids[row : row + 1]).logits[0], whole[row], rtol=1e-4, atol=1e-5)
    keys.set(torch.arange(4, 8))
    assert not torch.allclose(model(ids).logits, whole, atol=1e-3)
