"""The three ways of labels on the five published rows: ours, the published rule, and TRL's trainer."""

import json

import numpy as np
import pytest

from engine.compile.compilation import narrow
from engine.spec.load import load_spec
from stages.generate import Parameters
from stages.generate.body import run as generate
from stages.process.job import Job
from stages.tokenize.masks.completion import Completion
from stages.tokenize.masks.delimited import Delimited
from stages.tokenize.masks.full import Full
from stages.tokens.files import Tokens
from tests.seeds.workspaces import SEEDS
from tests.stages.tokenize.conftest import BOS, EOS, byte_level, chatting, encoder_of, save
from tests.stages.tokenize.test_masks import published, tokenize

EXPERIMENT = SEEDS / "bloom-560m-chat/published"


@pytest.fixture(scope="module")
def tokenizer_files(tmp_path_factory):
    return save(chatting(byte_level()), tmp_path_factory.mktemp("bloom"), {"eos_token": EOS, "bos_token": BOS})


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """Prompt and completion of the five rows, of the tasks `translate` and `unmarked`, with the tokenizer's own begin token."""
    experiment = load_spec(EXPERIMENT / "specs/trl.toml", EXPERIMENT).experiment
    return {name: made(narrow(Parameters, experiment.tasks[name]), tmp_path_factory.mktemp(name)) for name in ("translate", "unmarked")}


def made(parameters, folder):
    (folder / "out").mkdir()
    generate(parameters, Job("generate", {"source": EXPERIMENT / "data/translations.jsonl"}, folder / "out", None, folder))
    found = [json.loads(line) for line in (folder / "out/rows.jsonl").read_text("utf-8").splitlines()]
    return [{"prompt": row["prompt"].replace("<s>", BOS), "completion": row["completion"]} for row in found]


def labels(tokens: Tokens):
    found = map(tokens.row, range(len(tokens)))
    return [(ids.tolist(), np.where(supervised, ids, -100).tolist()) for ids, supervised in found]


def test_the_masks_give_the_published_labels(tmp_path, tokenizer_files, rows):
    encoder = encoder_of(tokenizer_files)
    wanted = [published(encoder, row["prompt"] + row["completion"]) for row in rows["unmarked"]]
    counts, delimited = tokenize(tmp_path, tokenizer_files, rows["unmarked"], mask=Delimited())
    assert labels(delimited) == wanted and counts["rows_out"] == counts["completions"] == 5
    _, completion = tokenize(tmp_path, tokenizer_files, rows["translate"], mask=Completion(), control_tokens_in_text="control")
    assert labels(completion) == wanted
    _, full = tokenize(tmp_path, tokenizer_files, rows["translate"], mask=Full(), control_tokens_in_text="control")
    assert labels(full) == [(ids, ids) for ids, _ in wanted]


@pytest.mark.slow
def test_trl_gives_the_same_labels(tmp_path, tokenizer_files, rows):
    from datasets import Dataset
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast
    from trl import SFTConfig, SFTTrainer

    file = str(tokenizer_files["tokenizer/tokenizer.json"])
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=file, eos_token=EOS, bos_token=BOS, pad_token=EOS)
    model = GPT2LMHeadModel(GPT2Config(vocab_size=len(tokenizer), n_embd=8, n_layer=1, n_head=1, n_positions=64))
    config = SFTConfig(str(tmp_path / "trl"), max_length=None, report_to="none", use_cpu=True, bf16=False, completion_only_loss=True)
    trainer = SFTTrainer(model, args=config, train_dataset=Dataset.from_list(rows["translate"]), processing_class=tokenizer)
    theirs = [(row["input_ids"], row["labels"]) for row in trainer.train_dataset]
    _, tokens = tokenize(tmp_path, tokenizer_files, rows["translate"], mask=Completion(), control_tokens_in_text="control")
    assert labels(tokens) == theirs
