"""Each method trains each family for real, and what it saves gives the trained model's answers on the base as it was."""

import json
from typing import get_args

import pytest
import torch

from engine.core.errors import UserError
from stages.initialize.architectures import Architecture
from stages.train.methods import Ia3, Method, PrefixTuning, PromptTuning
from tests.stages.train.matrix import (
    FAMILIES,
    METHODS,
    TRAINS,
    VARIANTS,
    again,
    answer,
    base_answer,
    continuation,
    outcome,
    parts,
    prepared,
    train,
)
from tests.stages.train.methods_table import OUTCOMES, TABLE, ZERO_COLUMNS, read, table, written

PAIRS = [(method, family) for method in METHODS for family in FAMILIES]
TRAINED = [pair for pair in PAIRS if outcome(*pair) == TRAINS]
VARIED = [(method, "Qwen2") for method in VARIANTS]
REFUSED = [pair for pair in PAIRS if outcome(*pair) != TRAINS]


@pytest.mark.parametrize(("method", "family"), TRAINED + VARIED)
def test_it_learns_and_what_is_saved_answers_as_the_trained_model(tmp_path, method, family):
    chosen = (METHODS | VARIANTS)[method]
    model = prepared(family, chosen)
    losses = train(model, learning_rate=0.3 if isinstance(chosen, Ia3) else 0.03)
    assert losses[-1] < losses[0]
    chosen.save(model, tmp_path)
    saved = again(family, chosen, tmp_path)
    trained = answer(model)
    torch.testing.assert_close(answer(saved), trained, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(base_answer(family, chosen.quantisation), trained, rtol=1e-3, atol=1e-3)
    if isinstance(chosen, PromptTuning | PrefixTuning):
        assert continuation(saved).shape[1] >= 3
    with written() as outcomes:
        if method in METHODS:
            outcomes.setdefault(method, {})[family] = TRAINS


@pytest.mark.parametrize(("method", "family"), REFUSED)
def test_what_is_refused_is_refused_with_a_way_out_and_really_fails(monkeypatch, method, family):
    chosen = METHODS[method]
    reason = outcome(method, family)
    with pytest.raises(UserError, match="; use "):
        prepared(family, chosen)
    monkeypatch.setattr(type(chosen), "refused", lambda self, model_type: None)
    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        train(prepared(family, chosen))
    with written() as outcomes:
        outcomes.setdefault(method, {})[family] = reason


def test_the_table_shows_what_these_tests_ran():
    recorded = json.loads(OUTCOMES.read_text())
    assert recorded["zero"] == {method: dict.fromkeys(ZERO_COLUMNS, TRAINS) for method in METHODS}
    assert recorded["families"] == {method: {family: outcome(method, family) for family in FAMILIES} for method in METHODS}
    assert TABLE.read_text() == table(read()), "run: python -m tests.stages.train.methods_table --write"


def test_every_member_of_the_families_is_in_the_matrix():
    assert parts(METHODS) == set(get_args(get_args(Method)[0]))
    assert {type(architecture) for architecture in FAMILIES.values()} == set(get_args(get_args(Architecture)[0]))


@pytest.mark.parametrize("method", ["prompt_tuning", "prefix_tuning"])
def test_virtual_tokens_stand_before_a_sequence_not_before_each_of_its_rows(method):
    """Why rows that share a sequence are refused: a second row that is told apart from the first sees nothing of what was learnt."""
    model = prepared("Llama", METHODS[method]).eval()
    assert not METHODS[method].packs
    ids = torch.tensor([[5, 6, 7, 8, 9, 10]])
    apart = torch.full((6, 6), float("-inf")).triu(1)
    apart[3:, :3] = float("-inf")
    virtual = METHODS[method].virtual_tokens
    with torch.no_grad():
        alone = model(input_ids=ids[:, 3:]).logits[:, -3:]
        assert model(input_ids=ids).logits.shape[1] in (6, 6 + virtual), "one prompt for the whole sequence"
        packed = model.get_base_model()(
            input_ids=ids, attention_mask=apart[None, None], position_ids=torch.tensor([[0, 1, 2, 0, 1, 2]])
        ).logits
    assert not torch.allclose(alone, packed[:, 3:], atol=1e-4)
