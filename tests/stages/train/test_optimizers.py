"""Optimizers: what they do to weights, against torch's own and the formulas."""

from copy import deepcopy
from typing import get_args

import pytest
import torch

from stages.train.optimizers import Adafactor, AdamW, AdamW8bit, Optimizer, PagedAdamW
from stages.train.optimizers.base import groups

MEMBERS = [AdamW(), PagedAdamW(), AdamW8bit(), AdamW8bit(paged=True), Adafactor()]


def model():
    torch.manual_seed(0)
    # The first matrix is large enough for states of 8 bits.
    return torch.nn.Sequential(torch.nn.Linear(64, 128), torch.nn.Tanh(), torch.nn.LayerNorm(128), torch.nn.Linear(128, 1))


def run(made, weights, steps=20):
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(32, 64, generator=generator)
    targets = inputs[:, :1] * 2
    losses = []
    for _ in range(steps):
        loss = (weights(inputs) - targets).square().mean()
        loss.backward()
        made.step()
        made.zero_grad()
        losses.append(float(loss))
    return losses


def made_by(optimizer, weights, decay=0.1):
    return optimizer.make(weights.named_parameters(), 3e-3, (0.9, 0.99), decay)


def test_all_members_are_tried():
    assert {type(member) for member in MEMBERS} == set(get_args(get_args(Optimizer)[0]))


@pytest.mark.parametrize("optimizer", MEMBERS, ids=str)
def test_it_learns_twice_alike(optimizer):
    runs = []
    for _ in range(2):
        weights = model()
        runs.append((run(made_by(optimizer, weights), weights), [weight.detach().clone() for weight in weights.parameters()]))
    (losses, one), (again, other) = runs
    assert losses == again and all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    assert losses[-1] < losses[0] * 0.9


@pytest.mark.parametrize(("optimizer", "near"), [(PagedAdamW(), 1e-4), (AdamW8bit(), 5e-2)], ids=str)
def test_states_elsewhere_or_in_few_bits_are_nearly_adamw(optimizer, near):
    curves = [run(made_by(member, weights := model()), weights) for member in (AdamW(), optimizer)]
    assert curves[1] == pytest.approx(curves[0], rel=near)


def test_states_of_8_bits_are_bytes():
    weights = model()
    made = made_by(AdamW8bit(), weights)
    run(made, weights, 1)
    states = made.state[weights[0].weight]
    assert states["state1"].dtype == states["state2"].dtype == torch.uint8
    assert made.state[weights[0].bias]["state1"].dtype == torch.float32


@pytest.mark.parametrize("optimizer", MEMBERS, ids=str)
def test_matrices_are_decayed_and_vectors_are_not(optimizer):
    weights = model()
    before = {name: weight.detach().clone() for name, weight in weights.named_parameters()}
    made = made_by(optimizer, weights, decay=0.5)
    for weight in weights.parameters():
        weight.grad = torch.zeros_like(weight)
    made.step()
    for name, weight in weights.named_parameters():
        shrunk = float(weight.norm()) < float(before[name].norm()) * 0.9999
        assert shrunk == (weight.ndim > 1), name


def test_frozen_weights_are_in_no_group():
    weights = model()
    weights[0].requires_grad_(False)
    found = groups(weights.named_parameters(), 0.1)
    assert {id(weight) for group in found for weight in group["params"]} == {id(w) for w in weights.parameters() if w.requires_grad}
    assert groups([], 0.1) == []


@pytest.mark.parametrize("optimizer", MEMBERS, ids=str)
def test_states_come_back(optimizer):
    """What a checkpoint needs: the state of one optimizer, loaded into another, goes on alike."""
    weights = model()
    made = made_by(optimizer, weights)
    run(made, weights, 5)
    copy = model()
    copy.load_state_dict(weights.state_dict())
    other = made_by(optimizer, copy)
    other.load_state_dict(deepcopy(made.state_dict()))
    assert run(made, weights, 5) == run(other, copy, 5)
