"""The three faults of the published Falcon-7B experiment: the twin does not have them, and each, put in on purpose, is caught."""

import dataclasses

import numpy as np
import pytest
import torch

from engine.compile.compilation import narrow
from engine.spec.load import load_spec
from stages import tokenize as tokenize_kind
from stages import train as train_kind
from stages.generate.reports import headline, key_sentence, reports
from stages.tokenize import batch as tokenize_batch
from stages.tokenize import tokenization
from stages.train import GlobalBatch
from stages.train.body import run
from stages.train.distributed.processes import Replicated
from stages.train.loop import trainer
from tests.seeds.workspaces import SEEDS
from tests.stages.initialize.tiny import make_model
from tests.stages.tokenize.test_masks import tokenize
from tests.stages.train.tiny import training_job

EXPERIMENT = SEEDS / "falcon-7b-summaries"


@pytest.fixture(scope="module")
def twin():
    return load_spec(EXPERIMENT / "specs/multitask-tiny.toml", EXPERIMENT).experiment


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A Falcon with the layer of 7B, and its tokenizer."""
    return make_model(tmp_path_factory.mktemp("model"), "falcon", new_decoder_architecture=False, kv_heads=1)


# Gradient accumulation that goes wrong where an epoch ends in the midst of a global batch.

SIZES = {"copy": 13, "name": 9}
"""22 rows of different lengths: the last global batch of 6 has 4."""


def gradients(folder, model, twin, micro_batch):
    """The gradient of each step of one epoch in micro-batches of so many rows, as the optimizer is given it.

    The learning rate is so small that no weight moves: each step of one division then meets the weights of the other's, and what differs
    is the sum itself. The weights after real steps would tell less, since AdamW makes a whole step of the smallest gradient's sign.
    """
    values = {"global_batch": GlobalBatch(rows=6), "micro_batch": micro_batch, "seed": 3, "threads": 1, "learning_rate": 1e-30}
    method = twin.training.method.model_copy(update={"r": 4, "lora_alpha": 8})
    found = []

    def step(self, learning_rate):
        found.append(torch.cat([weight.grad.flatten() for weight in self.model.parameters() if weight.grad is not None]))
        return original(self, learning_rate)

    original = Replicated.step
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Replicated, "step", step)
        metrics = run(narrow(train_kind.Parameters, twin.training, **values, method=method), training_job(folder, model, SIZES))
    assert metrics["rows"] == 22 and len(found) == metrics["steps"] == 4, "the last, smaller batch is learned from too"
    return found


def gap(folder, model, twin):
    """How far accumulating moves the gradient of any step from that of the whole batch, relative to its size."""
    whole = gradients(folder / "whole", model, twin, 6)
    parts = gradients(folder / "parts", model, twin, 4)
    return max(float((part - one).norm() / one.norm()) for part, one in zip(parts, whole, strict=True))


def test_accumulation_changes_nothing_at_the_end_of_an_epoch_either(tmp_path, model, twin):
    assert twin.training.method.kind == "qlora"
    assert gap(tmp_path, model, twin) < 1e-4


def test_accumulation_that_weighs_parts_equally_is_caught(tmp_path, model, twin, monkeypatch):
    """What the library did: the mean of each part, divided by the number of parts of a full batch, at the ragged end too."""

    def mean_of_part(logits, targets, supervised_tokens):
        return original(logits, targets, len(targets)) / 2

    original = trainer.token_loss
    monkeypatch.setattr(trainer, "token_loss", mean_of_part)
    assert gap(tmp_path, model, twin) > 1e-2


# Rows that are dropped without a word because they are short, or long.


def report_rows():
    """Short rows and long ones: reports, some of them several in a row."""
    texts = list(reports(24, 1))
    prompts = [f"Find the key sentence.\nText: {' '.join(texts[i : i + 1 + 3 * (i % 3 == 0)])}\nAnswer:" for i in range(len(texts))]
    answers = [(key_sentence, headline)[i % 2](text) for i, text in enumerate(texts)]
    return [{"prompt": prompt, "completion": f" {answer}"} for prompt, answer in zip(prompts, answers, strict=True)]


@pytest.fixture
def files(model):
    return {f"tokenizer/{name}": model / name for name in ("tokenizer.json", "tokenizer_config.json")}


def as_the_twin(twin, **values):
    """The twin's parameters of tokenize."""
    made = narrow(tokenize_kind.Parameters, twin.tokenization, encoder_decoder=False, **values)
    return {name: getattr(made, name) for name in tokenize_kind.Parameters.model_fields}


def test_every_row_is_learned_from_or_counted(tmp_path, files, twin):
    rows = report_rows()
    counts, tokens = tokenize(tmp_path, files, rows, **as_the_twin(twin, max_length=300))
    assert counts["rows_in"] == counts["rows_out"] == len(tokens) == len(rows), "shortened or not, every row is there"
    assert 0 < counts["truncated"] < len(rows) and counts["left_out"] == {}
    counts, tokens = tokenize(tmp_path, files, rows, **as_the_twin(twin, max_length=300, over_length="drop"))
    assert counts["left_out"] == {"longer than max_length": len(rows) - len(tokens)} and 0 < len(tokens) < len(rows)


@pytest.mark.parametrize("dropped", ["short", "long"])
def test_rows_that_are_dropped_in_silence_are_caught(tmp_path, files, twin, monkeypatch, dropped):
    if dropped == "short":  # as packing did that kept full chunks only
        monkeypatch.setattr(tokenization.Tokenization, "_whole", lambda *_: iter(()))
    else:
        monkeypatch.setattr(tokenization.Tokenization, "_cut", lambda *_: iter(()))
    with pytest.raises(AssertionError):
        tokenize(tmp_path, files, report_rows(), **as_the_twin(twin, max_length=300))


# An end-of-sequence token that is left out of the loss, because it is taken for padding.


def test_every_answer_ends_with_a_learned_end_token(tmp_path, files, twin):
    counts, tokens = tokenize(tmp_path, files, report_rows(), **as_the_twin(twin, max_length=300))
    assert counts["completions"] == counts["rows_out"]
    for index in range(len(tokens)):
        ids, supervised = tokens.row(index)
        assert ids[-1] == 0 and supervised[-1] == 1


@pytest.mark.parametrize("mask", ["completion", "full"])
def test_an_end_token_without_a_label_is_caught(tmp_path, files, twin, monkeypatch, mask):
    def without_end(*arguments):
        made = original(*arguments)
        return dataclasses.replace(made, supervised=np.where(made.ids == 0, 0, made.supervised).astype(np.uint8))

    original = tokenize_batch.encode_batch
    monkeypatch.setattr(tokenization, "encode_batch", without_end)
    with pytest.raises(AssertionError):
        tokenize(tmp_path, files, report_rows(), **as_the_twin(twin, max_length=2000, mask={"kind": mask}))
