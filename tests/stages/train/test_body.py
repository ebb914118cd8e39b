"""Training learns from exactly the mixture's rows, gives the same weights however a batch is split, and the same bits again."""

import csv
import json
import math
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file as load_numpy
from safetensors.numpy import save_file as save_numpy
from safetensors.torch import load_file

from engine.core.errors import UserError
from stages.models.folders import load_model
from stages.train import GlobalBatch, Schedule
from stages.train.batching import Packed, Padded, PaddingFree, Unsorted
from stages.train.body import run
from stages.train.loop.data import Row, Rows, global_batches
from stages.train.loop.schedule import factor
from stages.train.methods import Full, Lora
from tests.stages.initialize.tiny import ARCHITECTURES, contents, make_model
from tests.stages.train.tiny import collate, mean_loss, settings, training_job


def trained(folder, model, **values):
    """Metrics and weights of a training."""
    job = training_job(folder, model)
    metrics = run(settings(**values), job)
    return metrics, load_file(job.output / ("model.safetensors" if (job.output / "config.json").exists() else "adapter_model.safetensors"))


ROUNDING = 1e-4
"""Trainings that differ by rounding alone differ by less, on every processor; a row more or less moves weights a hundred times as far."""


def difference(one, other):
    """Largest relative difference of any tensor, by norm."""
    assert one.keys() == other.keys()
    return max(float((one[name] - other[name]).norm() / one[name].norm().clamp_min(1e-12)) for name in one)


def bare_loop(model, rows, parameters):
    """The same training by a plain loop: whole global batches, no trainer."""
    decayed = [weight for weight in model.parameters() if weight.ndim > 1]
    others = [weight for weight in model.parameters() if weight.ndim == 1]
    groups = [{"params": decayed, "weight_decay": parameters.weight_decay}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=0.0, betas=parameters.betas)
    batches = global_batches(rows, parameters.global_batch.rows)
    for step, batch in enumerate(batches):
        inputs = collate([rows[index] for index in batch])
        labels = inputs.pop("labels")[:, 1:].reshape(-1)
        logits = model(**inputs, use_cache=False).logits[:, :-1]
        torch.nn.functional.cross_entropy(logits.reshape(len(labels), -1), labels).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), parameters.max_grad_norm)
        for group in optimizer.param_groups:
            group["lr"] = parameters.learning_rate * factor(parameters.schedule, step, len(batches))
        optimizer.step()
        optimizer.zero_grad()


def test_it_is_the_training_that_a_plain_loop_does(tmp_path, falcon):
    parameters = settings(weight_decay=0.1, schedule=Schedule(warmup_ratio=0.3))
    metrics, weights = trained(tmp_path, falcon, weight_decay=0.1, schedule=Schedule(warmup_ratio=0.3))
    job_inputs = {task: tmp_path / task / "train.safetensors" for task in ("copy", "name")}
    model = load_model(falcon)
    bare_loop(model, Rows.open(tmp_path / "order", job_inputs), parameters)
    assert metrics["steps"] == 4 and metrics["rows"] == 22, "22 rows are 3 batches of 6 and one of 4"
    assert difference(weights, {name: weight for name, weight in model.state_dict().items() if name in weights}) < ROUNDING


@pytest.mark.parametrize(("architecture", "method"), [("falcon", Full()), ("llama", Lora(r=4))], ids=["falcon", "llama-lora"])
def test_ways_of_batching_give_the_same_weights(tmp_path, architecture, method):
    model = make_model(tmp_path / "model", architecture)
    layouts = {"none": Unsorted(), "padded": Padded(), "padding_free": PaddingFree()}
    values = {"method": method, "micro_batch": 4}
    found = {name: trained(tmp_path / name, model, batching=layout, **values)[1] for name, layout in layouts.items()}
    assert difference(found["none"], found["padded"]) < ROUNDING
    assert difference(found["none"], found["padding_free"]) < ROUNDING


def test_a_single_row_moves_the_weights_much_further_than_rounding(tmp_path, falcon):
    _, whole = trained(tmp_path / "whole", falcon)
    job = training_job(tmp_path / "less", falcon)
    order = load_numpy(job.inputs["order"] / "order.safetensors")
    save_numpy({name: np.delete(values, 1) for name, values in order.items()}, job.inputs["order"] / "order.safetensors")
    run(settings(), job)
    assert difference(whole, load_file(job.output / "model.safetensors")) > 100 * ROUNDING


def test_a_packed_mixture_is_one_training_however_its_bins_are_computed(tmp_path, falcon):
    found = {}
    for name, values in {"whole": {}, "single": {"micro_batch": 1}, "rows": {"batching": Padded()}}.items():
        job = training_job(tmp_path / name, falcon)
        bins = np.array([0, 3, 5, 9, 10, 14, 18, 22])
        order = load_numpy(job.inputs["order"] / "order.safetensors")
        save_numpy({**order, "bins": bins}, job.inputs["order"] / "order.safetensors")
        metrics = run(settings(**{"global_batch": GlobalBatch(rows=3), "batching": Packed(), **values}), job)
        assert metrics["steps"] == 3, "7 bins are 2 batches of 3 and one of 1"
        lengths = Rows.open(job.inputs["order"], job.group("tokens")).lengths()
        assert metrics["_measured"]["longest_row"] == max(int(lengths[a:b].sum()) for a, b in pairwise(bins)), "a bin is computed whole"
        found[name] = load_file(job.output / "model.safetensors")
    assert difference(found["whole"], found["single"]) < ROUNDING
    assert difference(found["whole"], found["rows"]) < ROUNDING


def test_a_model_that_cannot_keep_rows_apart_is_refused_before_the_first_step(tmp_path):
    with pytest.raises(UserError, match=r"Bloom.* cannot separate packed rows"):
        trained(tmp_path, make_model(tmp_path / "model", "bloom"), batching=PaddingFree())


@pytest.fixture(scope="module")
def whole(tmp_path_factory, falcon):
    return trained(tmp_path_factory.mktemp("whole"), falcon)


@pytest.mark.parametrize("micro_batch", [1, 3, 4, 5, 100])
def test_weights_do_not_depend_on_the_micro_batch(tmp_path, falcon, whole, micro_batch):
    metrics, weights = trained(tmp_path, falcon, micro_batch=micro_batch)
    assert difference(whole[1], weights) < ROUNDING
    assert metrics["train_loss"] == pytest.approx(whole[0]["train_loss"], abs=2e-6)
    assert metrics["validation_loss"] == pytest.approx(whole[0]["validation_loss"], abs=2e-6)
    assert {key: metrics[key] for key in ("steps", "tokens", "supervised_tokens")} == {
        key: whole[0][key] for key in ("steps", "tokens", "supervised_tokens")
    }


@pytest.mark.parametrize("micro_batch", [1, 5])
def test_first_gradient_does_not_depend_on_the_micro_batch(tmp_path, falcon, micro_batch):
    def norms(folder, **values):
        job = training_job(folder, falcon)
        run(settings(**values), job)
        return [float(row["grad_norm"]) for row in csv.DictReader(job.plot.open())]

    assert norms(tmp_path / "split", micro_batch=micro_batch) == pytest.approx(norms(tmp_path / "whole"), rel=1e-5)


@pytest.mark.parametrize(("rows", "micro_batch"), [(100, None), (100, 5), (22, 4), (11, 2)])
def test_a_batch_larger_than_the_mixture_or_that_divides_it_works(tmp_path, falcon, rows, micro_batch):
    metrics, _ = trained(tmp_path, falcon, global_batch=GlobalBatch(rows=rows), micro_batch=micro_batch)
    assert metrics["steps"] == math.ceil(22 / rows)


@pytest.mark.parametrize("threads", [1, pytest.param(2, marks=pytest.mark.slow)])
@pytest.mark.parametrize("method", [Full(), Lora(r=4, lora_dropout=0.1)])
def test_two_runs_leave_the_same_bytes(tmp_path, falcon, method, threads):
    outputs = []
    for name in ("one", "another-place"):
        job = training_job(tmp_path / name, falcon)
        metrics = run(settings(method=method, micro_batch=4, threads=threads), job)
        metrics.pop("_measured")
        outputs.append((contents(job.output), job.plot.read_bytes(), json.dumps(metrics)))
        assert str(tmp_path).encode() not in b"".join(outputs[-1][0].values())
    assert outputs[0] == outputs[1]


@pytest.mark.slow
def test_another_process_with_another_hash_seed_leaves_the_same_adapter(tmp_path, falcon):
    script = (
        "import sys; from pathlib import Path; from stages.train.body import run; from stages.train.methods import Lora; "
        "from tests.stages.train.tiny import settings, training_job; "
        "run(settings(method=Lora(r=4, lora_dropout=0.1)), training_job(Path(sys.argv[1]), Path(sys.argv[2]))); "
        "assert 'deepspeed' not in sys.modules, 'it takes seconds, and one device has no use for it'"
    )
    other = "2" if os.environ.get("PYTHONHASHSEED") == "1" else "1"
    command = [sys.executable, "-c", script, str(tmp_path / "other"), str(falcon)]
    assert subprocess.run(command, check=True, env=os.environ | {"PYTHONHASHSEED": other}, capture_output=True).stdout == b""
    here = training_job(tmp_path / "here", falcon)
    run(settings(method=Lora(r=4, lora_dropout=0.1)), here)
    assert contents(tmp_path / "other" / "job" / "output") == contents(here.output)


def test_another_seed_gives_another_adapter(tmp_path, falcon):
    one, other = (trained(tmp_path / str(seed), falcon, method=Lora(r=4), seed=seed)[1] for seed in (1, 2**40))
    assert difference(one, other) > 0.1


ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")
SERVING_FILES = ("generation_config.json", "tokenizer.json", "tokenizer_config.json")


def test_an_adapter_folder_is_weights_and_what_serving_needs_without_paths_or_versions(tmp_path, falcon):
    template = "{{ messages[0].content }}<|pad|>"
    job = training_job(tmp_path, falcon)
    (tmp_path / "format.json").write_text(json.dumps({"end": "<|pad|>", "template": template}))
    run(settings(method=Lora(r=4)), replace(job, inputs={**job.inputs, "format": tmp_path / "format.json"}))
    found = contents(job.output)
    assert set(found) == {*ADAPTER_FILES, *SERVING_FILES, "chat_template.jinja"}
    assert found["chat_template.jinja"].decode() == template and json.loads(found["generation_config.json"])["eos_token_id"] == [1, 0]
    assert found["tokenizer.json"] == contents(falcon)["tokenizer.json"]
    for name, data in found.items():
        assert str(tmp_path).encode() not in data and b"/home" not in data and b"_version" not in data and b"/tmp" not in data, name


def test_an_end_token_that_the_model_lacks_is_told_before_the_training(tmp_path, falcon):
    model = tmp_path / "model"
    shutil.copytree(falcon, model)
    (model / "generation_config.json").write_text('{"eos_token_id": [0, 5000]}')
    job = training_job(tmp_path, model)
    with pytest.raises(UserError, match="contains token 5000, but the model has 300 tokens"):
        run(settings(method=Lora(r=4)), job)
    assert not any(job.output.iterdir()) and not any(job.scratch.iterdir())


def test_adapter_training_moves_only_the_adapter_and_learns(tmp_path, falcon):
    job = training_job(tmp_path, falcon)
    metrics = run(settings(method=Lora(r=4), learning_rate=3e-2), job)
    assert set(contents(job.output)) == {*ADAPTER_FILES, *SERVING_FILES}
    assert 0 < metrics["trainable_parameters"] < metrics["parameters"] / 2
    assert all(weight.abs().max() > 0 for name, weight in load_file(job.output / "adapter_model.safetensors").items())


def test_full_training_leaves_a_model_with_its_tokenizer(tmp_path, falcon):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    job = training_job(tmp_path, falcon)
    metrics = run(settings(), job)
    model, tokenizer = (kind.from_pretrained(job.output, local_files_only=True) for kind in (AutoModelForCausalLM, AutoTokenizer))
    assert metrics["trainable_parameters"] == metrics["parameters"] == model.num_parameters()
    assert model.config.use_cache, "the trainer turns it off, which would make the saved model slow"
    before, after = contents(falcon), contents(job.output)
    assert {name for name in before if before[name] != after[name]} == {"model.safetensors"} and before.keys() == after.keys()
    assert tokenizer.eos_token == "<|endoftext|>"


@pytest.mark.parametrize("architecture", [name for name in ARCHITECTURES if name != "falcon"])
def test_every_architecture_learns_whatever_the_micro_batch(tmp_path, architecture):
    model = make_model(tmp_path / "model", architecture)
    one, other = (trained(tmp_path / str(micro), model, micro_batch=micro) for micro in (None, 4))
    # All weights as one vector: GPT-2's key biases have no effect, so that Adam makes steps of the rounding of their gradients.
    whole, split = ({"all": torch.cat([weight.flatten() for weight in weights.values()])} for _, weights in (one, other))
    assert difference(whole, split) < ROUNDING
    rows = Rows.open(tmp_path / "4" / "order", {task: tmp_path / "4" / task / "train.safetensors" for task in ("copy", "name")})
    before, after = load_model(model), load_model(tmp_path / "4" / "job" / "output")
    assert mean_loss(after, rows) < mean_loss(before, rows) - 0.05


def test_metrics_count_what_was_learnt_from(tmp_path, falcon):
    job = training_job(tmp_path, falcon)
    metrics = run(settings(), job)
    rows = Rows.open(job.inputs["order"], job.group("tokens"))
    lengths = [len(rows[index][0]) for index in range(len(rows))]
    assert metrics["tokens"] == sum(lengths)
    assert metrics["supervised_tokens"] == sum(int(rows[index][1].sum()) for index in range(len(rows)))
    measured = metrics["_measured"]
    memory = {
        "training_memory_bytes",
        "peak_memory_bytes",
        "memory_before_bytes",
        "longest_row",
        "supervised_share",
        "micro_batch_rows",
        "attention",
    }
    assert set(measured) == {"training_seconds", "tokens_per_second"} | memory
    assert measured["peak_memory_bytes"] >= measured["memory_before_bytes"] > 50e6 > measured["training_memory_bytes"]
    assert measured["longest_row"] == max(lengths) and measured["attention"] == "sdpa"
    assert measured["supervised_share"] == pytest.approx(metrics["supervised_tokens"] / metrics["tokens"], abs=1e-4)


def test_curve_has_a_line_per_step_with_the_rate_that_the_step_used(tmp_path, falcon):
    job = training_job(tmp_path, falcon)
    parameters = settings(schedule=Schedule(kind="linear", warmup_ratio=0.5))
    metrics = run(parameters, job)
    rows = list(csv.DictReader(job.plot.open()))
    rates = [float(row["learning_rate"]) for row in rows]
    assert rates == pytest.approx([3e-3 * factor(parameters.schedule, step, 4) for step in range(4)], rel=1e-5)
    assert metrics["train_loss"] == pytest.approx(float(rows[-1]["loss"]), rel=1e-5)


def test_first_loss_of_the_curve_is_the_untrained_models(tmp_path, falcon):
    job = training_job(tmp_path, falcon)
    run(settings(), job)
    rows = Rows.open(job.inputs["order"], job.group("tokens"))
    inputs = collate([rows[index] for index in range(6)])
    with torch.no_grad():
        expected = float(load_model(falcon)(**inputs).loss)
    assert float(next(csv.DictReader(job.plot.open()))["loss"]) == pytest.approx(expected, rel=1e-5)


def test_validation_loss_is_per_supervised_token_and_skips_tasks_without_any(tmp_path, falcon):
    from stages.tokens.files import Tokens
    from tests.stages.train.tiny import write_tokens

    job = training_job(tmp_path, falcon)
    write_tokens(job.inputs["validation/name"], 0, 0)
    metrics = run(settings(), job)
    model, file = load_model(job.output), Tokens.open(job.inputs["validation/copy"])
    total = count = 0.0
    for index in range(len(file)):
        inputs = collate([Row(*file.row(index))])
        supervised = int((inputs["labels"] != -100).sum())
        with torch.no_grad():
            total += float(model(**inputs).loss) * supervised
        count += supervised
    assert metrics["validation_loss"] == {"copy": pytest.approx(total / count, abs=1e-5)}


def test_a_diverging_training_is_the_users_matter(tmp_path, falcon):
    with pytest.raises(UserError, match="diverged") as caught:
        trained(tmp_path, falcon, learning_rate=1e30)
    assert "learning_rate" in caught.value.problems[0].hint


def test_tokens_of_another_tokenizer_are_the_users_matter(tmp_path, falcon):
    with pytest.raises(UserError, match=r"has \d+ tokens"):
        run(settings(), training_job(tmp_path, falcon, vocab=5000))


def test_rows_longer_than_the_model_are_the_users_matter(tmp_path, falcon):
    with pytest.raises(UserError, match="64 positions"):
        run(settings(), training_job(tmp_path, falcon, length=(70, 80)))


def test_rows_without_anything_to_learn_are_the_users_matter(tmp_path, falcon):
    with pytest.raises(UserError, match="no supervised token"):
        run(settings(), training_job(tmp_path, falcon, supervised=False))


def test_nothing_but_numbers_of_the_run_reach_stdout(tmp_path, falcon, capsys):
    trained(tmp_path, falcon)
    assert capsys.readouterr().out == ""


def test_no_checkpoint_is_left_in_the_artifact(tmp_path, falcon):
    job = training_job(tmp_path, falcon)
    run(settings(), job)
    assert [path.name for path in job.output.iterdir() if path.is_dir()] == []
    assert np.all([path.suffix in (".json", ".safetensors") for path in job.output.iterdir()])
