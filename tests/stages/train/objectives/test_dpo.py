"""DPO is what its paper says, and what TRL computes, however a global batch is divided and wherever a training is killed."""

import csv
import json
import math
import shutil

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from safetensors.numpy import load_file as load_numpy
from safetensors.torch import load_file

from engine.core.errors import UserError
from stages.models.folders import load_model
from stages.models.projection import predictions
from stages.process.job import Preempted
from stages.tokens.files import Tokens, TokenWriter
from stages.train import Checkpoints, GlobalBatch
from stages.train.batching import Packed, Padded, PaddingFree, Unsorted
from stages.train.body import run
from stages.train.loop import trainer
from stages.train.loop.batches import below
from stages.train.loop.data import Rows
from stages.train.loop.preference import Preference
from stages.train.loop.record import MEASURES
from stages.train.methods import Lora
from stages.train.objectives.base import Answers, Totals
from stages.train.objectives.dpo import Dpo
from tests.stages.initialize.tiny import contents, make_model
from tests.stages.train.objectives.pairs import pairs_job, reference_of
from tests.stages.train.tiny import settings

DPO = Dpo(beta=0.5)


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    return make_model(tmp_path_factory.mktemp("llama"), "llama")


def of_numbers(*numbers: float) -> Answers:
    """One pair: log-probabilities of both answers, numbers of tokens, and log-probabilities under the reference."""
    return Answers(*(torch.tensor([number]) for number in numbers))


def other_way(pair: Answers) -> Answers:
    """PAIR with its labels exchanged."""
    tokens, reference = (pair.rejected_tokens, pair.chosen_tokens), (pair.reference_rejected, pair.reference_chosen)
    return Answers(pair.rejected, pair.chosen, *tokens, *reference)


def test_on_two_tokens_the_loss_is_the_closed_form():
    """A model of two tokens with logits (a, 0), answers of one token: log-probabilities are -log(1 + e^-a) and -log(1 + e^a)."""
    a, b, beta = 0.7, -0.2, 0.3
    logit = torch.tensor([a], requires_grad=True)
    logps = torch.log_softmax(torch.stack([logit, torch.zeros(1)]), 0)
    reference = torch.log_softmax(torch.tensor([b, 0.0]), 0)
    ones = torch.ones(1)
    pair = Answers(logps[0], logps[1], ones, ones, reference[:1], reference[1:])
    loss = Dpo(beta=beta).loss_of(pair, Totals(1, 1, 1))
    loss.backward()
    # The difference of the log-probabilities is the logit itself.
    assert float(loss.detach()) == pytest.approx(math.log(1 + math.exp(-beta * (a - b))), abs=1e-6)
    assert float(logit.grad) == pytest.approx(-beta / (1 + math.exp(beta * (a - b))), abs=1e-6)


def test_the_variants_are_those_of_their_papers():
    pair, totals = of_numbers(-2.0, -6.0, 2.0, 3.0, -3.0, -5.0), Totals(1, 1, 2)
    margin = 0.1 * (1.0 + 1.0)
    assert float(Dpo(beta=0.1).loss_of(pair, totals)) == pytest.approx(math.log(1 + math.exp(-margin)))
    smoothed = 0.8 * math.log(1 + math.exp(-margin)) + 0.2 * math.log(1 + math.exp(margin))
    assert float(Dpo(beta=0.1, label_smoothing=0.2).loss_of(pair, totals)) == pytest.approx(smoothed)
    assert float(Dpo(beta=0.1, loss="hinge").loss_of(pair, totals)) == pytest.approx(1 - margin)
    assert float(Dpo(beta=0.1, loss="ipo").loss_of(pair, totals)) == pytest.approx((1 / 2 + 1 / 3 - 5.0) ** 2)
    # The mean over labels that are exchanged with probability 0.2 is the loss of DPO with the right ones.
    robust, exchanged = (Dpo(beta=0.1, label_smoothing=0.2, loss="robust").loss_of(one, totals) for one in (pair, other_way(pair)))
    assert float(0.8 * robust + 0.2 * exchanged) == pytest.approx(math.log(1 + math.exp(-margin)))
    with pytest.raises(ValidationError, match="loss robust without exchanged labels is loss sigmoid"):
        Dpo(loss="robust")
    with pytest.raises(ValidationError, match="label_smoothing is only for the losses sigmoid and robust, got hinge"):
        Dpo(loss="hinge", label_smoothing=0.1)


def test_a_training_starts_at_log_2_and_learns_to_prefer_the_chosen_answers(tmp_path, llama):
    job = pairs_job(tmp_path, llama, epochs=6)
    metrics = run(settings(objective=DPO, global_batch=GlobalBatch(rows=7), learning_rate=1e-2), job)
    with job.plot.open() as file:
        curve = list(csv.DictReader(file))
    assert list(curve[0]) == ["step", "loss", "learning_rate", "grad_norm", *MEASURES]
    assert float(curve[0]["loss"]) == pytest.approx(math.log(2), abs=1e-6), "the model is its own reference"
    assert float(curve[-1]["margin"]) > 0.1
    assert metrics["pairs"] == 84 and metrics["steps"] == 12 and metrics["rows"] == 168
    longest = int(Tokens.open(job.inputs["tokens/colour"]).lengths.max())
    assert (metrics["_measured"]["longest_row"], metrics["_measured"]["answers_of_row"]) == (2 * longest, 2), "both are padded to it"
    assert metrics["validation"]["colour"].keys() == set(MEASURES)
    assert metrics["validation"]["colour"]["chosen_tokens"] < metrics["validation"]["colour"]["rejected_tokens"]


def weights(job, **values):
    run(settings(objective=DPO, **{"global_batch": GlobalBatch(rows=4), "method": Lora(r=4, lora_dropout=0.3)} | values), job)
    return load_file(job.output / "adapter_model.safetensors")


def difference(one, other):
    return max(float((one[name] - other[name]).norm() / one[name].norm().clamp_min(1e-12)) for name in one)


def test_the_weights_do_not_depend_on_how_a_batch_is_divided_or_laid_out(tmp_path, llama):
    whole = weights(pairs_job(tmp_path / "whole", llama), micro_batch=4)
    for number, values in enumerate(
        (
            {"micro_batch": 1},
            {"micro_batch": 3, "batching": Padded()},
            {"micro_batch": 2, "batching": Unsorted()},
            {"micro_batch": 2, "batching": PaddingFree()},
        )
    ):
        assert difference(whole, weights(pairs_job(tmp_path / str(number), llama), **values)) < 1e-4, values


def test_pairs_are_packed_whole_and_apart(tmp_path, llama):
    packed = pairs_job(tmp_path / "packed", llama, packed=64)
    bins, row = (load_numpy(packed.inputs["order"] / "order.safetensors")[name] for name in ("bins", "row"))
    assert len(bins) < 14 and not (bins % 2).any(), "a bin holds whole pairs"
    assert (row[1::2] == row[::2] + 1).all() and not (row[::2] % 2).any()
    flat, padded = Packed(length=64), Padded()
    one = weights(packed, batching=flat, global_batch=GlobalBatch(rows=2))
    other = weights(pairs_job(tmp_path / "padded", llama, packed=64), batching=padded, global_batch=GlobalBatch(rows=2))
    assert difference(one, other) < 1e-4


def test_a_killed_training_resumes_to_the_bit(tmp_path, llama, monkeypatch):
    values = {"method": Lora(r=4, lora_dropout=0.3), "global_batch": GlobalBatch(rows=3), "checkpoints": Checkpoints(every_steps=1)}
    parameters = settings(objective=DPO, **values)
    undisturbed = pairs_job(tmp_path / "whole", llama)
    run(parameters, undisturbed)
    job = pairs_job(tmp_path / "killed", llama)

    def killed(self, point):
        note(self, point)
        if point.step == 3:
            raise Preempted("killed")

    note = trainer.Trainer._note
    with monkeypatch.context() as patched, pytest.raises(Preempted):
        patched.setattr(trainer.Trainer, "_note", killed)
        run(parameters, job)
    shutil.rmtree(job.output)
    job.output.mkdir()
    run(parameters, job)
    assert contents(job.output) == contents(undisturbed.output)
    assert job.plot.read_bytes() == undisturbed.plot.read_bytes()


def test_a_reference_of_another_base_or_of_other_tokens_is_refused(tmp_path, llama):
    other = make_model(tmp_path / "other", "llama", hidden_size=16)
    job = pairs_job(tmp_path, llama)
    files = {split: job.inputs[f"{role}/colour"] for split, role in (("train", "tokens"), ("validation", "validation"))}
    wrong = {**job.inputs, "reference/colour": reference_of(tmp_path / "wrong", other, **files)}
    with pytest.raises(UserError, match="the reference of task 'colour' is another model than the one that the training starts from"):
        run(settings(objective=DPO), type(job)(job.name, wrong, job.output, job.plot, job.scratch))
    said = job.inputs["reference/colour"] / "reference.json"
    content = json.loads(said.read_text())
    content["tokens"]["train"] = "0" * 64
    said.write_text(json.dumps(content))
    with pytest.raises(UserError, match="the reference of task 'colour' was computed for other train tokens"):
        run(settings(objective=DPO), job)


def test_an_objective_on_pairs_refuses_single_answers_and_the_other_way_round(tmp_path, llama):
    job = pairs_job(tmp_path, llama)
    with pytest.raises(UserError, match="the objective is on single answers, but the rows are tokenized as pairs of answers"):
        run(settings(), job)


def test_a_continued_adapter_is_compared_with_itself_as_it_was(tmp_path, llama):
    """The reference of a training that continues an adapter is the base with that adapter, not the base."""
    first = pairs_job(tmp_path / "first", llama)
    run(settings(objective=DPO, method=Lora(r=4), global_batch=GlobalBatch(rows=3), learning_rate=1e-2), first)
    job = pairs_job(tmp_path / "second", llama, adapter=first.output)
    run(settings(objective=DPO, method=Lora(r=4), global_batch=GlobalBatch(rows=3)), job)
    with job.plot.open() as file:
        assert float(next(csv.DictReader(file))["loss"]) == pytest.approx(math.log(2), abs=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("objective", "loss_type"),
    [
        (Dpo(beta=0.3), "sigmoid"),
        (Dpo(beta=0.3, loss="hinge"), "hinge"),
        (Dpo(beta=0.3, loss="ipo"), "ipo"),
        # TRL 1.16 smooths no labels of its loss sigmoid; its aot, which sorts margins, is the same of one pair alone.
        (Dpo(beta=0.3, label_smoothing=0.2), "aot"),
        (Dpo(beta=0.3, label_smoothing=0.2, loss="robust"), "robust"),
    ],
    ids=["sigmoid", "hinge", "ipo", "smoothed", "robust"],
)
def test_losses_and_gradients_are_those_of_trl(tmp_path, llama, objective, loss_type):
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import DPOConfig, DPOTrainer

    other = make_model(tmp_path / "other", "llama", intermediate_size=48)
    texts = [
        {"prompt": "say red:", "chosen": " red", "rejected": " red house and river"},
        {"prompt": "say say blue:", "chosen": " blue one two", "rejected": " bird"},
        {"prompt": "three:", "chosen": " three", "rejected": " four five cat"},
    ]
    chosen = {"beta": objective.beta, "loss_type": [loss_type], "label_smoothing": objective.label_smoothing}
    arguments = DPOConfig(str(tmp_path / "trl"), **chosen, report_to=[], use_cpu=True, max_length=None, bf16=False)
    theirs = AutoModelForCausalLM.from_pretrained(llama, dtype=torch.float32)
    peer = DPOTrainer(
        theirs,
        AutoModelForCausalLM.from_pretrained(other, dtype=torch.float32),
        args=arguments,
        train_dataset=Dataset.from_list(texts),
        processing_class=AutoTokenizer.from_pretrained(llama),
    )
    examples = [peer.train_dataset[number] for number in range(len(texts))]
    theirs.eval()
    batches = [[example] for example in examples] if loss_type == "aot" else [examples]
    expected = sum(peer.compute_loss(theirs, peer.data_collator(batch)) for batch in batches) / len(batches)
    expected.backward()

    path = tmp_path / "pairs.safetensors"
    with TokenWriter(path) as writer:
        for example in examples:
            sides = [example["prompt_ids"] + example[name] for name in ("chosen_ids", "rejected_ids")]
            mask = [[0] * len(example["prompt_ids"]) + [1] * (len(side) - len(example["prompt_ids"])) for side in sides]
            lengths, chosen = np.array([len(side) for side in sides]), np.array([1, 0], np.uint8)
            ids, supervised = np.concatenate(sides).astype(np.int32), np.concatenate(mask).astype(np.uint8)
            writer.write_rows(ids, supervised, lengths, chosen=chosen)
    tokens = Tokens.open(path)
    logps = load_numpy(reference_of(tmp_path / "reference", other, path, path) / "train.safetensors")["logps"]
    rows = Rows([tokens], np.zeros(6, np.int16), np.arange(6), np.arange(0, 7, 2), [logps])
    model = load_model(llama)
    preference = Preference(objective, rows)
    batch = below(range(6), [rows[number] for number in range(6)])
    loss, _ = preference.part(*predictions(model, batch.inputs, batch.labels), range(6), preference.totals(range(6)))
    loss.backward()
    assert float(loss) == pytest.approx(float(expected), abs=1e-5)
    wanted = {name: weight.grad for name, weight in theirs.named_parameters() if weight.grad is not None}
    found = {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}
    assert found.keys() == wanted.keys()
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, wanted[name], rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_two_processes_learn_what_one_learns(tmp_path, llama):
    one = weights(pairs_job(tmp_path / "one", llama))
    two = weights(pairs_job(tmp_path / "two", llama), devices=2)
    assert difference(one, two) < 1e-4
    with (tmp_path / "two/job/plot.csv").open() as two_file, (tmp_path / "one/job/plot.csv").open() as one_file:
        for ours, theirs in zip(csv.DictReader(two_file), csv.DictReader(one_file), strict=True):
            assert float(ours["margin"]) == pytest.approx(float(theirs["margin"]), abs=1e-4)
