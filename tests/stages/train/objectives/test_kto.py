"""KTO is what its paper says, and what TRL computes; its divergence is one number for a global batch, however the batch is divided."""

import csv
import json
import math
import shutil

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file as load_numpy
from safetensors.torch import load_file

from engine.core.errors import UserError
from stages.mix import Parameters as Mixing
from stages.mix.body import run as mix
from stages.models.folders import load_model
from stages.models.projection import predictions
from stages.process.job import Preempted
from stages.tokens.files import Tokens, TokenWriter
from stages.train import Checkpoints, GlobalBatch
from stages.train.batching import Packed, Padded, PaddingFree
from stages.train.body import run
from stages.train.distributed.processes import Replicated
from stages.train.loop import trainer
from stages.train.loop.batches import below
from stages.train.loop.data import Rows
from stages.train.loop.divergence import Divergence
from stages.train.loop.division import Share
from stages.train.loop.preference import Preference
from stages.train.loop.record import KL, MEASURES
from stages.train.methods import Lora
from stages.train.objectives.base import Answers, Totals
from stages.train.objectives.dpo import Dpo
from stages.train.objectives.kto import Kto
from stages.train.objectives.supervised import Supervised
from tests.stages.initialize.tiny import contents, make_job, make_model
from tests.stages.train.objectives.pairs import pairs_job, reference_of
from tests.stages.train.tiny import settings

KTO = Kto(beta=0.5, desirable_weight=2.0)


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    return make_model(tmp_path_factory.mktemp("llama"), "llama")


def kto_job(folder, model, **more):
    """A job that trains MODEL on random pairs with the divergence from MODEL itself."""
    job = pairs_job(folder, model, **more)
    files = {split: job.inputs[f"{role}/colour"] for split, role in (("train", "tokens"), ("validation", "validation"))}
    kept = {role: path for role, path in job.inputs.items() if role == "adapter"}
    job.inputs["mismatched/colour"] = reference_of(folder / "mismatched", model, **files, mismatched=True, **kept)
    return job


def sigmoid(value):
    return 1 / (1 + math.exp(-value))


def test_the_losses_are_those_of_the_papers():
    """Two desirable answers and one undesirable one; log-ratios 1, -2 and 0.5, divergence 0.4."""
    chosen, rejected = torch.tensor([-2.0, -5.0]), torch.tensor([-1.5])
    answers = Answers(chosen, rejected, torch.ones(2), torch.ones(1), torch.tensor([-3.0, -3.0]), torch.tensor([-2.0]))
    totals = Totals(2, 1, 2, kl=0.4)
    objective = Kto(beta=0.3, desirable_weight=1.2, undesirable_weight=0.7)
    values = sigmoid(0.3 * (1.0 - 0.4)), sigmoid(0.3 * (-2.0 - 0.4)), sigmoid(0.3 * (0.4 - 0.5))
    expected = (1.2 * (1 - values[0]) + 1.2 * (1 - values[1]) + 0.7 * (1 - values[2])) / 3
    assert float(objective.loss_of(answers, totals)) == pytest.approx(expected)
    unshifted = Kto(beta=0.3, loss="apo_zero_unpaired")
    expected = (1 - sigmoid(0.3) + 1 - sigmoid(-0.6) + sigmoid(0.15)) / 3
    assert not unshifted.estimates_kl
    assert float(unshifted.loss_of(answers, Totals(2, 1, 2))) == pytest.approx(expected)


def test_a_training_starts_at_half_the_weights_and_learns_to_prefer(tmp_path, llama):
    job = kto_job(tmp_path, llama, epochs=6)
    metrics = run(settings(objective=KTO, global_batch=GlobalBatch(rows=7), learning_rate=1e-2), job)
    with job.plot.open() as file:
        curve = list(csv.DictReader(file))
    assert list(curve[0]) == ["step", "loss", "learning_rate", "grad_norm", *MEASURES, KL]
    assert float(curve[0]["loss"]) == pytest.approx((1 + 2.0) / 4, abs=1e-6), "the model is its own reference"
    assert float(curve[0][KL]) == pytest.approx(0, abs=1e-5) and float(curve[-1]["margin"]) > 0.1
    assert all(float(point[KL]) >= 0 for point in curve) and any(float(point[KL]) > 0 for point in curve)
    assert metrics["validation"]["colour"].keys() == {*MEASURES, KL} and metrics["pairs"] == 84


def trained(job, **values):
    run(
        settings(
            objective=KTO, **{"global_batch": GlobalBatch(rows=4), "method": Lora(r=4, lora_dropout=0.3), "learning_rate": 1e-2} | values
        ),
        job,
    )
    with job.plot.open() as file:
        divergences = [float(point[KL]) for point in csv.DictReader(file)]
    return load_file(job.output / "adapter_model.safetensors"), divergences


def agree(one, other):
    """Whether two trainings have the same weights and the same divergences, some of them above 0."""
    (ours, kl), (theirs, their_kl) = one, other
    same = all(float((ours[name] - theirs[name]).norm() / ours[name].norm().clamp_min(1e-12)) < 1e-4 for name in ours)
    return same and any(kl) and kl == pytest.approx(their_kl, abs=1e-5)


def test_neither_weights_nor_divergence_depend_on_how_a_batch_is_divided_or_laid_out(tmp_path, llama):
    whole = trained(kto_job(tmp_path / "whole", llama), micro_batch=4)
    for number, values in enumerate(({"micro_batch": 1}, {"micro_batch": 3, "batching": Padded()}, {"batching": PaddingFree()})):
        assert agree(whole, trained(kto_job(tmp_path / str(number), llama), **values)), values
    values = {"global_batch": GlobalBatch(rows=2)}
    packed = trained(kto_job(tmp_path / "packed", llama, packed=64), batching=Packed(length=64), **values)
    assert agree(packed, trained(kto_job(tmp_path / "padded", llama, packed=64), **values))


def judged_job(folder, model):
    """A job that trains MODEL on random judged answers, of which a third is desirable."""
    generator = np.random.default_rng(4)
    folder.mkdir()

    def some(low, high):
        return generator.integers(2, 250, generator.integers(low, high)).tolist()

    files = {
        split: written_alone(folder / f"{split}.safetensors", [(some(2, 7), some(1, 9), number % 3 == 0) for number in range(rows)])
        for split, rows in (("train", 16), ("validation", 4))
    }
    order = make_job(folder / "mix", {"tokens/colour": files["train"]})
    mix(Mixing(epochs=2), order)
    inputs = {"model": model, "order": order.output, "tokens/colour": files["train"], "validation/colour": files["validation"]}
    for role in ("reference", "mismatched"):
        inputs[f"{role}/colour"] = reference_of(folder / role, model, **files, mismatched=role == "mismatched")
    return make_job(folder / "job", inputs, plot=True)


def test_answers_that_were_judged_alone_are_learned_however_a_batch_is_divided(tmp_path, llama):
    """Batches of 4 rows, some without a desirable answer."""
    whole = trained(judged_job(tmp_path / "whole", llama))
    job = judged_job(tmp_path / "parts", llama)
    assert agree(whole, trained(job, micro_batch=1, batching=PaddingFree()))
    with job.plot.open() as file:
        curve = list(csv.DictReader(file))
    assert float(curve[-1]["margin"]) > float(curve[0]["margin"]) == pytest.approx(0, abs=1e-4)
    metrics = run(settings(objective=KTO, global_batch=GlobalBatch(rows=4), learning_rate=3e-2), judged_job(tmp_path / "full", llama))
    assert metrics["desirable"] == 2 * 6 and metrics["validation"]["colour"].keys() == {*MEASURES, KL}
    for objective, sort in ((Dpo(), "pairs of answers"), (Supervised(), "single answers")):
        with pytest.raises(UserError, match=f"the objective is on {sort}, but the rows are tokenized as judged answers"):
            run(settings(objective=objective), judged_job(tmp_path / objective.kind, llama))


def test_a_killed_training_resumes_to_the_bit(tmp_path, llama, monkeypatch):
    parameters = settings(objective=KTO, global_batch=GlobalBatch(rows=3), checkpoints=Checkpoints(every_steps=1), learning_rate=3e-2)
    undisturbed, job = kto_job(tmp_path / "whole", llama), kto_job(tmp_path / "killed", llama)
    run(parameters, undisturbed)

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


def test_mismatched_answers_of_another_base_or_of_other_tokens_are_refused(tmp_path, llama):
    job = kto_job(tmp_path, llama)
    said = job.inputs["mismatched/colour"] / "reference.json"
    content = json.loads(said.read_text())
    for changed, what in (({"model": "0" * 64}, "another model"), ({"tokens": {"train": "", "validation": ""}}, "other train tokens")):
        said.write_text(json.dumps(content | changed))
        with pytest.raises(UserError, match=f"the reference of task 'colour' (is|was computed for) {what}"):
            run(settings(objective=KTO), job)


def written(path, rows):
    """A token file of pairs: ROWS are prompts, chosen and rejected answers, lists of ids."""
    with TokenWriter(path) as writer:
        for prompt, *answers in rows:
            sides = [prompt + answer for answer in answers]
            mask = np.concatenate([[0] * len(prompt) + [1] * len(answer) for answer in answers])
            lengths = np.array([len(side) for side in sides])
            ids = np.concatenate(sides).astype(np.int32)
            writer.write_rows(ids, mask.astype(np.uint8), lengths, chosen=np.array([1, 0], np.uint8))
    return path


def written_alone(path, rows):
    """A token file of judged answers: ROWS are prompts, answers, and whether they are desirable."""
    with TokenWriter(path) as writer:
        for prompt, answer, desirable in rows:
            ids, mask = np.array(prompt + answer, np.int32), np.repeat([0, 1], [len(prompt), len(answer)]).astype(np.uint8)
            writer.write_rows(ids, mask, np.array([len(ids)]), desirable=np.array([desirable], np.uint8))
    return path


def test_every_answer_stands_once_or_more_after_a_prompt_that_it_does_not_answer(tmp_path, llama):
    """Over random prompts, many of them equal to their neighbours."""
    for seed in range(3):
        generator = np.random.default_rng(seed)
        rows = [
            ([5 + int(generator.integers(3))], *(generator.integers(20, 99, generator.integers(1, 5)).tolist() for _ in range(2)))
            for _ in range(9)
        ]
        path = written(tmp_path / f"{seed}.safetensors", rows)
        tokens = Tokens.open(path)
        folder = reference_of(tmp_path / str(seed), llama, path, path, mismatched=True)
        couples = Tokens.open(folder / "train-tokens.safetensors")
        assert len(couples) == len(tokens) and couples.lengths.max() <= tokens.lengths.max()
        answers = {side: {(tuple(row[0]), tuple(row[1 + side])) for row in rows} for side in (0, 1)}
        for number in range(len(couples)):
            ids, supervised = couples.row(number)
            prompt, answer = ids[supervised == 0].tolist(), ids[supervised == 1].tolist()
            assert prompt == rows[number // 2][0]
            assert any(other[: len(answer)] == tuple(answer) and of != tuple(prompt) for of, other in answers[number % 2])
    same = written(tmp_path / "same.safetensors", [([5], [6], [7]), ([5], [8], [9])])
    with pytest.raises(UserError, match="all train rows have the same prompt"):
        reference_of(tmp_path / "same", llama, same, same, mismatched=True)


def test_held_out_rows_of_one_prompt_are_validated_without_a_divergence(tmp_path, llama):
    """Beside a task whose held-out rows have several prompts."""
    job = kto_job(tmp_path, llama)
    same = written(tmp_path / "same.safetensors", [([5], [6], [7]), ([5], [8], [9, 10])])
    files = {"train": job.inputs["tokens/colour"], "validation": same}
    other = {
        role: reference_of(tmp_path / f"other-{role}", llama, **files, mismatched=role == "mismatched")
        for role in ("reference", "mismatched")
    }
    assert len(Tokens.open(other["mismatched"] / "validation-tokens.safetensors")) == 0
    order = make_job(tmp_path / "both", {"tokens/alike": files["train"], "tokens/colour": files["train"]})
    mix(Mixing(epochs=1), order)
    job.inputs.update({"order": order.output, "tokens/alike": files["train"], "validation/alike": same})
    job.inputs.update({f"{role}/alike": folder for role, folder in other.items()})
    metrics = run(settings(objective=KTO, global_batch=GlobalBatch(rows=7), learning_rate=1e-2), job)
    assert metrics["validation"]["alike"].keys() == set(MEASURES) and metrics["validation"]["colour"].keys() == {*MEASURES, KL}
    assert metrics["validation"]["alike"]["chosen_tokens"] == 1.0 and metrics["validation"]["alike"]["rejected_tokens"] == 1.5


TEXTS = [
    {"prompt": "say red:", "chosen": " red", "rejected": " red house and river"},
    {"prompt": "say say blue:", "chosen": " blue one two", "rejected": " bird"},
    {"prompt": "three:", "chosen": " three", "rejected": " four five cat"},
]


@pytest.mark.slow
@pytest.mark.parametrize(("loss_type", "alone"), [("kto", False), ("kto", True), ("apo_zero_unpaired", False)])
def test_losses_gradients_and_divergence_are_those_of_trl(tmp_path, llama, loss_type, alone):
    """On pairs, and on more desirable than undesirable answers that were judged alone."""
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import KTOConfig, KTOTrainer

    weights = {"desirable_weight": 1.3, "undesirable_weight": 0.8}
    objective = Kto(beta=0.3, loss=loss_type, **weights)
    other = make_model(tmp_path / "other", "llama", intermediate_size=48)
    sides = (("chosen", TEXTS), ("rejected", TEXTS[:2]))
    judged = [{"prompt": row["prompt"], "completion": row[side], "label": side == "chosen"} for side, rows in sides for row in rows]
    common = {"report_to": [], "use_cpu": True, "max_length": None, "bf16": False, "per_device_train_batch_size": 6}
    theirs = AutoModelForCausalLM.from_pretrained(other, dtype=torch.float32)
    peer = KTOTrainer(
        theirs,
        AutoModelForCausalLM.from_pretrained(llama, dtype=torch.float32),
        args=KTOConfig(str(tmp_path / "trl"), beta=0.3, loss_type=loss_type, **weights, **common),
        train_dataset=Dataset.from_list(judged if alone else TEXTS),
        processing_class=AutoTokenizer.from_pretrained(llama),
    )
    examples = list(peer.train_dataset)
    # TRL cuts rows and mismatched answers at max_length; here mismatched answers end where the longest row does.
    peer.data_collator.max_length = max(len(one["prompt_ids"]) + len(one["completion_ids"]) for one in examples)
    expected = peer.compute_loss(theirs, peer.data_collator(examples))
    expected.backward()

    path = tmp_path / "rows.safetensors"
    if alone:
        written_alone(path, [(one["prompt_ids"], one["completion_ids"], one["label"]) for one in examples])
    else:
        pairs = zip(examples[:3], examples[3:], strict=True)
        written(path, [(one["prompt_ids"], one["completion_ids"], worse["completion_ids"]) for one, worse in pairs])
    logps = load_numpy(reference_of(tmp_path / "reference", llama, path, path) / "train.safetensors")["logps"]
    every = range(len(examples))
    ours = Rows([Tokens.open(path)], np.zeros(len(every), np.int16), np.arange(len(every)), None if alone else np.arange(0, 7, 2), [logps])
    if objective.estimates_kl:
        folder = reference_of(tmp_path / "mismatched", llama, path, path, mismatched=True)
        couples = {"a": Tokens.open(folder / "train-tokens.safetensors")}
        ours.add_mismatched(couples, {"a": load_numpy(folder / "train.safetensors")["logps"]})
    model, preference = load_model(other), Preference(objective, ours)
    processes = Replicated(model, torch.optim.SGD(model.parameters()), 1.0, Share())
    kl = Divergence(ours.mismatched).estimate(processes, every, 2, torch.no_grad) if ours.mismatched else 0.0
    totals = preference.totals(every, kl)
    batch = below(every, [ours[number] for number in every])
    loss, _ = preference.part(*predictions(model, batch.inputs, batch.labels), every, totals)
    loss.backward()
    assert totals.kl == pytest.approx(peer._metrics["eval"]["kl"][-1], abs=1e-5)
    assert (totals.kl > 0) is (loss_type == "kto")
    assert float(loss) == pytest.approx(float(expected), abs=1e-5)
    wanted = {name: weight.grad for name, weight in theirs.named_parameters() if weight.grad is not None}
    for name, weight in model.named_parameters():
        torch.testing.assert_close(weight.grad, wanted[name], rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_two_processes_learn_what_one_learns(tmp_path, llama):
    assert agree(trained(kto_job(tmp_path / "one", llama)), trained(kto_job(tmp_path / "two", llama), devices=2))
