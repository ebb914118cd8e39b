"""Each method trains each family for real, and what it saves gives the trained model's answers on the base as it was."""

import json
from typing import get_args

import numpy as np
import pytest
import torch

from engine.core.errors import UserError
from stages.initialize.architectures import Architecture
from stages.models.projection import predictions
from stages.tokenize import Labels
from stages.tokenize.pairs import unfit_for_pairs
from stages.tokens.files import Tokens
from stages.train.loop.batches import below
from stages.train.loop.data import Rows
from stages.train.loop.preference import Preference
from stages.train.methods import Ia3, Method, PrefixTuning, PromptTuning
from stages.train.objectives import Objective
from stages.train.objectives.distill import Distill, Taught
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

ON_ANSWERS = {kind.model_fields["kind"].default: kind() for kind in get_args(get_args(Objective)[0]) if kind.on_pairs}
DISTILL = Distill(teacher="large", top_k=3, temperature=2.0)
OBJECTIVES = {*ON_ANSWERS, "distill"}
"""All but supervised training, which the first table is of."""
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


@pytest.mark.parametrize(("method", "family"), [(m, "Llama") for m in METHODS] + [("lora", f) for f in FAMILIES if f != "Llama"])
def test_each_objective_learns_with_each_method_and_on_each_causal_family(method, family):
    """Two pairs of answers, one pair of which the reference judges otherwise, and a teacher that finds the first three tokens likely."""
    causal, name = not FAMILIES[family].encoder_decoder, method if family == "Llama" else family
    reason = None if causal else unfit_for_pairs(Labels().model_copy(update={"encoder_decoder": True}))[1]
    ids, lengths = np.tile(np.array([5, 6, 7, 8, 9, 10, 5, 6, 11, 12], np.int32), 2), np.array([6, 4, 6, 4])
    supervised = np.tile(np.array([0, 0, 1, 1, 1, 1, 0, 0, 1, 1], np.uint8), 2)
    tokens = Tokens(ids, supervised, np.append(0, np.cumsum(lengths)), chosen=np.array([1, 0, 1, 0], np.uint8))
    rows = Rows([tokens], np.zeros(4, np.int16), np.arange(4), np.arange(0, 5, 2), [np.array([-20, -10, -15, -10], np.float32)])
    batch, every = below(range(4), [rows[number] for number in range(4)]), range(4)
    model = prepared(family, METHODS[method])

    def loss_of(objective, logits, targets):
        if objective is not DISTILL:
            preference = Preference(objective, rows)
            return preference.part(logits, targets, every, preference.totals(every, kl=0.1))[0]
        likely = torch.tensor([0.5, 0.25, 0.125]).log().repeat(len(targets), 1)
        return objective.loss_of(logits, targets, Taught(torch.arange(3).repeat(len(targets), 1), likely, likely[:, 2]), len(targets))[0]

    for objective in (*ON_ANSWERS.values(), DISTILL):
        if causal:
            loss_of(objective, *predictions(model, batch.inputs, batch.labels)).backward()
            gradients = [weight.grad for weight in model.parameters() if weight.grad is not None]
            assert all(gradient.isfinite().all() for gradient in gradients) and any(gradient.any() for gradient in gradients)
            model.zero_grad()
        with written("objectives") as outcomes:
            why = "distillation is supported for causal models only" if reason and objective is DISTILL else reason
            outcomes.setdefault(objective.kind, {}).update(dict.fromkeys((name, family), why or TRAINS))


def test_the_table_shows_what_these_tests_ran():
    recorded = json.loads(OUTCOMES.read_text())
    assert recorded["zero"] == {method: dict.fromkeys(ZERO_COLUMNS, TRAINS) for method in METHODS}
    causal = {family: TRAINS for family, architecture in FAMILIES.items() if not architecture.encoder_decoder}
    assert recorded["objectives"].keys() == OBJECTIVES
    assert all(cells.items() >= {**dict.fromkeys(METHODS, TRAINS), **causal}.items() for cells in recorded["objectives"].values())
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
