"""Trainings on weights that somebody trained: each method, padded and without padding, killed, merged, and loaded by plain peft.

All on SmolLM2-135M-Instruct, a few steps each, in processes of their own.
"""

import csv
import json
import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from benchmarks.common import REAL_MODEL
from engine.core.errors import UserError
from stages.dequantise import Parameters as Dequantise
from stages.dequantise.body import run as dequantise
from stages.merge import Parameters as Merge
from stages.merge.body import run as merge
from stages.process.job import Job
from stages.tokens.files import TokenWriter
from stages.train import Checkpoints, GlobalBatch
from stages.train.batching import Padded, PaddingFree
from stages.train.body import run
from stages.train.methods import Full, Ia3, Lora, PromptTuning, Qlora
from tests.stages.initialize.tiny import contents, make_job, write_lines
from tests.stages.train.groups import ended, forked
from tests.stages.train.tiny import settings, write_order

pytestmark = [pytest.mark.real, pytest.mark.forks]

CAPITALS = {"France": "Paris", "Japan": "Tokyo", "Egypt": "Cairo", "Peru": "Lima"}
CAPITALS |= {"Kenya": "Nairobi", "Norway": "Oslo", "Cuba": "Havana", "Iran": "Tehran"}
QUESTION = "Which city is the capital of {}? Answer backwards."


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    job = make_job(tmp_path_factory.mktemp("smollm2"), {"gguf": REAL_MODEL})
    assert ended(forked(lambda: dequantise(Dequantise(), job))) == 0
    return job.output


def job_of(folder: Path, model: Path, rows: int) -> Job:
    """A training that teaches the model to spell ROWS capitals backwards, by its own chat template."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    inputs = {"model": model, "order": write_order(folder / "order", {"capitals": rows})}
    for split in ("train", "validation"):
        path = inputs[f"{split}/capitals".replace("train/", "tokens/")] = folder / f"{split}.safetensors"
        with TokenWriter(path) as writer:
            for country, city in list(CAPITALS.items())[: rows if split == "train" else 1]:
                asked = [{"role": "user", "content": QUESTION.format(country)}]
                prompt = tokenizer.apply_chat_template(asked, add_generation_prompt=True, return_dict=True)["input_ids"]
                answer = [*tokenizer.encode(city[::-1]), tokenizer.eos_token_id]
                writer.write(np.array(prompt + answer, np.int32), np.repeat([0, 1], [len(prompt), len(answer)]).astype(np.uint8))
    return make_job(folder / "job", inputs, plot=True)


def trained(folder: Path, model: Path, rows: int = 4, **values) -> tuple[Job, list[float]]:
    """A finished training in a process of its own, and its losses step by step."""
    job = job_of(folder, model, rows)
    chosen = {"global_batch": GlobalBatch(rows=2), "learning_rate": 1e-3, "threads": 2} | values
    child = forked(lambda: run(settings(**chosen), job), folder / "log")
    assert ended(child) == 0, (folder / "log").read_text("utf-8")[-3000:]
    with job.plot.open(encoding="utf-8") as file:
        return job, [float(row["loss"]) for row in csv.DictReader(file)]


METHODS = {
    "full": Full(),
    "lora": Lora(r=8),
    "qlora, 4 bits": Qlora(r=8, compute_dtype="float32"),
    "qlora, 8 bits": Qlora(r=8, bits=8),
    "prompt tuning": PromptTuning(num_virtual_tokens=8),
    "ia3": Ia3(),
}


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_every_method_trains_and_padding_changes_no_loss(method, model, tmp_path):
    rate = 1e-4 if isinstance(method, Full) else 5e-3
    losses = {}
    for layout in (Padded(), PaddingFree()):
        # Virtual tokens would precede only the first row; layers of 8 bits treat the outliers of all rows together, which this model has.
        if layout.flat and (isinstance(method, PromptTuning) or (method.quantisation and method.quantisation.bits == 8)):
            continue
        _, losses[layout.kind] = trained(tmp_path / layout.kind, model, method=method, batching=layout, learning_rate=rate)
    first, *others = losses.values()
    assert len(first) == 2 and all(0 < loss < 20 for loss in first)
    assert all(other == pytest.approx(first, rel=2e-3) for other in others)


def test_in_bfloat16_the_rounding_of_many_layers_is_no_leak_between_rows(model, tmp_path):
    """Concatenated rows round as padded ones do: by an eighth of the logits' deviation, in a model of thirty layers."""
    losses = [
        trained(tmp_path / layout.kind, model, batching=layout, precision="bfloat16", method=METHODS["lora"])[1]
        for layout in (Padded(), PaddingFree())
    ]
    assert losses[1] == pytest.approx(losses[0], rel=5e-2)


def test_rows_that_8_bit_layers_would_mix_are_refused_without_padding(model, tmp_path):
    job = job_of(tmp_path, model, 2)

    def refused():
        with pytest.raises(UserError) as error:
            run(settings(method=METHODS["qlora, 8 bits"], batching=PaddingFree()), job)
        (tmp_path / "said").write_text(str(error.value), "utf-8")

    assert ended(forked(refused)) == 0
    said = (tmp_path / "said").read_text("utf-8")
    assert "the logits of a row depend on its neighbours" in said and "training.method.bits to 4" in said


def test_killed_within_a_training_it_goes_on_to_the_same_bytes_and_plain_peft_and_a_merge_answer_alike(model, tmp_path):
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    chosen = {"method": Lora(r=8), "checkpoints": Checkpoints(every_steps=1), "global_batch": GlobalBatch(rows=2)}
    job, losses = trained(tmp_path / "whole", model, len(CAPITALS), **chosen)
    assert losses[-1] < losses[0]
    killed = job_of(tmp_path / "killed", model, len(CAPITALS))
    child = forked(lambda: run(settings(learning_rate=1e-3, **chosen | {"threads": 2}), killed))
    while not list((killed.scratch / "checkpoints").glob("step-*")):
        assert os.waitpid(child, os.WNOHANG) == (0, 0), "it ended before it saved itself"
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    assert ended(child) == -signal.SIGKILL
    for path in killed.output.iterdir():
        path.unlink()
    assert ended(forked(lambda: run(settings(learning_rate=1e-3, **chosen | {"threads": 2}), killed))) == 0
    assert contents(killed.output) == contents(job.output)

    rows = tmp_path / "rows"
    rows.mkdir()
    for split in ("train", "validation", "test"):
        write_lines(
            rows / f"{split}.jsonl", [{"id": "1", "prompt": QUESTION.format("France"), "completion": "siraP"}] if split == "test" else []
        )
    merging = make_job(tmp_path / "merge", {"model": model, "rows/capitals": rows, "adapter/capitals": job.output})
    assert ended(forked(lambda: (merge(Merge(adapters={"capitals": 1.0}, threads=2), merging), 0)[1])) == 0
    ids = torch.tensor([[1, 4093, 198, 1780, 314, 260, 3575, 282, 4649, 47, 2]])
    with torch.inference_mode():
        adapted = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(model), job.output)(ids).logits
        merged = AutoModelForCausalLM.from_pretrained(merging.output)(ids).logits
        base = AutoModelForCausalLM.from_pretrained(model)(ids).logits
    assert (adapted - merged).abs().max() < 1e-3 < (adapted - base).abs().max()
    assert json.loads((job.output / "adapter_config.json").read_text("utf-8"))["r"] == 8
