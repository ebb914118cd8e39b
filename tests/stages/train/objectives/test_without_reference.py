"""ORPO and SimPO are what their papers say, and what TRL computes, or a difference that is named and has its reason."""

import math

import numpy as np
import pytest
import torch

from stages.models.folders import load_model
from stages.models.projection import predictions
from stages.tokens.files import Tokens, TokenWriter
from stages.train import GlobalBatch
from stages.train.body import run
from stages.train.loop.batches import below
from stages.train.loop.data import Rows
from stages.train.loop.preference import Preference
from stages.train.objectives.base import Answers, Totals
from stages.train.objectives.orpo import Orpo
from stages.train.objectives.simpo import Simpo
from tests.stages.initialize.tiny import make_model
from tests.stages.train.objectives.pairs import pairs_job
from tests.stages.train.tiny import settings


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    return make_model(tmp_path_factory.mktemp("llama"), "llama")


def pair(chosen, rejected, chosen_tokens, rejected_tokens):
    numbers = (chosen, rejected, chosen_tokens, rejected_tokens, 0.0, 0.0)
    return Answers(*(torch.tensor([number]) for number in numbers))


def test_the_losses_are_those_of_the_papers():
    p, q = math.exp(-1.0), math.exp(-3.0)  # probabilities per token
    given = pair(-2.0, -9.0, 2.0, 3.0)
    odds = math.log((p / (1 - p)) / (q / (1 - q)))
    assert float(Orpo(weight=0.3).loss_of(given, Totals(1, 1, 2))) == pytest.approx(1.0 + 0.3 * math.log(1 + math.exp(-odds)))
    margin = 2.5 * (3.0 - 1.0) - 1.4
    assert float(Simpo(beta=2.5, margin=1.4).loss_of(given, Totals(1, 1, 2))) == pytest.approx(math.log(1 + math.exp(-margin)))


@pytest.mark.parametrize("logp", [0.0, -1e-9, -1e-3, -0.7, -30.0, -200.0])
def test_the_odds_of_certain_and_of_impossible_answers_have_a_finite_gradient(logp):
    chosen = torch.tensor([logp], requires_grad=True)
    one = torch.ones(1)
    loss = Orpo().loss_of(Answers(chosen, torch.tensor([-1.0]), one, one, one, one), Totals(1, 1, 1))
    loss.backward()
    assert math.isfinite(float(loss.detach())) and math.isfinite(float(chosen.grad))


@pytest.mark.parametrize("objective", [Orpo(), Simpo()], ids=["orpo", "simpo"])
def test_a_training_needs_no_reference_and_learns_to_prefer(tmp_path, llama, objective):
    job = pairs_job(tmp_path, llama, epochs=6)
    inputs = {role: path for role, path in job.inputs.items() if not role.startswith("reference")}
    job = type(job)(job.name, inputs, job.output, job.plot, job.scratch)
    metrics = run(settings(objective=objective, global_batch=GlobalBatch(rows=7), learning_rate=1e-2), job)
    assert metrics["train"]["accuracy"] > 0.7 and metrics["train"]["margin"] > 0


TEXTS = [
    {"prompt": "say red:", "chosen": " red", "rejected": " red house and river"},
    {"prompt": "say say blue:", "chosen": " blue one two", "rejected": " bird"},
    {"prompt": "three:", "chosen": " three", "rejected": " four five cat"},
]


def peer_of(folder, model, objective):
    """TRL's trainer of the objective on TEXTS, with its model."""
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl.experimental.cpo import CPOConfig, CPOTrainer
    from trl.experimental.orpo import ORPOConfig, ORPOTrainer

    common = {"output_dir": str(folder / "trl"), "report_to": [], "use_cpu": True, "bf16": False, "max_length": 64}
    theirs = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(model)
    tokenizer.pad_token = tokenizer.eos_token
    given = {"train_dataset": Dataset.from_list(TEXTS), "processing_class": tokenizer}
    if isinstance(objective, Simpo):
        how = {"loss_type": "simpo", "cpo_alpha": 0.0, "beta": objective.beta, "simpo_gamma": objective.margin}
        return CPOTrainer(theirs, args=CPOConfig(**common, **how), **given), theirs
    return ORPOTrainer(theirs, args=ORPOConfig(**common, beta=objective.weight), **given), theirs


@pytest.mark.slow
@pytest.mark.parametrize("objective", [Orpo(weight=0.4), Simpo(beta=2.0, margin=0.6)], ids=["orpo", "simpo"])
def test_losses_and_gradients_are_those_of_trl(tmp_path, llama, objective):
    peer, theirs = peer_of(tmp_path, llama, objective)
    theirs.eval()
    batch = peer.data_collator([peer.train_dataset[number] for number in range(len(TEXTS))])
    if isinstance(objective, Orpo):
        # TRL learns the prompts of the chosen answers too; here, as in the paper, only the answers.
        chosen, rejected, _, _, _ = peer.concatenated_forward(theirs, batch)[:5]
        counts = (batch["chosen_labels"] != -100).sum(1)
        expected = -(chosen * counts).sum() / counts.sum() - peer.odds_ratio_loss(chosen, rejected)[0].mean()
    else:
        expected, _ = peer.get_batch_loss_metrics(theirs, batch)
    expected.backward()

    path = tmp_path / "pairs.safetensors"
    with TokenWriter(path) as writer:
        for number in range(len(TEXTS)):
            sides = []
            for name in ("chosen", "rejected"):
                here = batch[f"{name}_attention_mask"][number] == 1
                sides.append((batch[f"{name}_input_ids"][number][here].numpy(), (batch[f"{name}_labels"][number][here] != -100).numpy()))
            ids, supervised = (np.concatenate([side[part] for side in sides]) for part in (0, 1))
            lengths = np.array([len(side[0]) for side in sides])
            writer.write_rows(ids.astype(np.int32), supervised.astype(np.uint8), lengths, chosen=np.array([1, 0], np.uint8))
    rows = Rows([Tokens.open(path)], np.zeros(6, np.int16), np.arange(6), np.arange(0, 7, 2))
    model, preference = load_model(llama), Preference(objective, rows)
    given = below(range(6), [rows[number] for number in range(6)])
    loss, _ = preference.part(*predictions(model, given.inputs, given.labels), range(6), preference.totals(range(6)))
    loss.backward()
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), abs=1e-5)
    wanted = {name: weight.grad for name, weight in theirs.named_parameters() if weight.grad is not None}
    for name, weight in model.named_parameters():
        torch.testing.assert_close(weight.grad, wanted[name], rtol=1e-5, atol=1e-5)
