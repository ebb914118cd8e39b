"""Evaluation asks every test row, in any batch size, and refuses what cannot be asked."""

import hashlib
import json

import pytest

from engine.errors import UserError
from stages.common.models import load_model
from stages.evaluate import Parameters, TaskEvaluation
from stages.evaluate.body import run
from stages.evaluate.metrics import EosRate, ExactMatch, Length, Rouge
from stages.train.methods import Lora
from tests.stages.initialize.tiny import contents, make_job, make_model, texts, write_lines


def settings(**values):
    given = {"tasks": {"words": TaskEvaluation(max_new_tokens=8)}, "metrics": (ExactMatch(), EosRate(), Length(), Rouge()), "threads": 1}
    return Parameters(**(given | values))


def evaluation_job(folder, model, rows=None, **inputs):
    test = write_lines(folder / "test.jsonl", texts(20) if rows is None else rows)
    return make_job(folder / "job", {"model": model, "test/words": test, **inputs})


def predictions(job, task="words"):
    return [json.loads(line) for line in (job.output / f"predictions-{task}.jsonl").read_text().splitlines()]


def test_a_model_that_has_learnt_its_task_scores_high(tmp_path, parrot):
    job = evaluation_job(tmp_path, parrot)
    metrics = run(settings(), job)
    made = predictions(job)
    assert metrics["words"]["rows_out"] == 20 and metrics["words"]["left_out"] == {}
    assert metrics["words"]["exact_match"] >= 0.9 and metrics["words"]["eos_rate"] >= 0.9 and metrics["words"]["rouge1"] >= 0.9
    assert [row["id"] for row in made] == [row["id"] for row in texts(20)], "the order of the test split"
    assert list(made[0]) == ["id", "prompt", "reference", "answer", "ended", "tokens"]
    assert all("<|" not in row["answer"] for row in made)
    assert metrics["words"]["exact_match"] == pytest.approx(sum(r["answer"].strip() == r["reference"].strip() for r in made) / 20)


def test_the_result_does_not_depend_on_the_batch(tmp_path, parrot):
    results = []
    for size in (1, 3, 64):
        job = evaluation_job(tmp_path / str(size), parrot)
        results.append((run(settings(batch_rows=size), job), contents(job.output)))
    assert results[0] == results[1] == results[2]


def test_an_answer_that_is_cut_off_has_not_ended(tmp_path, parrot):
    job = evaluation_job(tmp_path, parrot)
    metrics = run(settings(tasks={"words": TaskEvaluation(max_new_tokens=1)}), job)
    assert metrics["words"] | {"exact_match": 0, "eos_rate": 0, "length": 1} == metrics["words"]
    assert all(row["tokens"] == 1 and not row["ended"] for row in predictions(job))


def test_the_cap_takes_the_rows_with_the_smallest_hash_of_the_id(tmp_path, parrot):
    job = evaluation_job(tmp_path, parrot)
    metrics = run(settings(rows=5), job)
    ids = [str(row["id"]) for row in texts(20)]
    expected = set(sorted(ids, key=lambda identifier: hashlib.sha256(identifier.encode()).digest())[:5])
    assert metrics["words"]["rows_out"] == 5
    assert [row["id"] for row in predictions(job)] == [identifier for identifier in ids if identifier in expected]


def test_an_untrained_adapter_changes_nothing_and_a_trained_one_does(tmp_path, parrot):
    from torch.nn.init import normal_

    results = []
    for name, scale in (("none", None), ("fresh", 0.0), ("disturbed", 1.0)):
        inputs = {}
        if scale is not None:
            model = Lora(r=4).prepare(load_model(parrot))
            for key, weight in model.named_parameters():
                if "lora_B" in key:
                    normal_(weight, std=scale)
            (tmp_path / name / "adapter").mkdir(parents=True)
            Lora(r=4).save(model, tmp_path / name / "adapter")
            inputs["adapter"] = tmp_path / name / "adapter"
        job = evaluation_job(tmp_path / name, parrot, **inputs)
        run(settings(), job)
        results.append(predictions(job))
    assert results[0] == results[1] != results[2]


def test_each_task_has_its_own_file_limit_and_numbers(tmp_path, parrot):
    other = write_lines(tmp_path / "other.jsonl", texts(3))
    job = evaluation_job(tmp_path, parrot, **{"test/other": other})
    metrics = run(settings(tasks={"words": TaskEvaluation(max_new_tokens=8), "other": TaskEvaluation(max_new_tokens=1)}), job)
    assert metrics["words"]["rows_out"] == 20 and metrics["other"]["rows_out"] == 3
    assert metrics["other"]["length"] == 1 < metrics["words"]["length"]
    assert set(contents(job.output)) == {"predictions-other.jsonl", "predictions-words.jsonl"}


def test_rows_with_lone_surrogates_are_left_out_and_counted(tmp_path, parrot):
    job = evaluation_job(tmp_path, parrot, [*texts(3), {"id": "x", "prompt": "\ud800", "completion": "a"}])
    metrics = run(settings(), job)
    assert (metrics["words"]["rows_out"], metrics["words"]["left_out"]) == (3, {"lone surrogate": 1})


def test_numbers_are_rounded_for_stable_diffs(tmp_path, parrot):
    metrics = run(settings(), evaluation_job(tmp_path, parrot, texts(7)))
    numbers = [value for value in metrics["words"].values() if isinstance(value, float)]
    assert len(numbers) >= 6 and all(round(value, 6) == value for value in numbers)


def test_an_empty_test_split_says_what_to_change(tmp_path, parrot):
    with pytest.raises(UserError, match="no test rows") as caught:
        run(settings(), evaluation_job(tmp_path, parrot, []))
    assert "tasks.words.split.test" in caught.value.problems[0].hint


def test_an_empty_prompt_is_located(tmp_path, parrot):
    with pytest.raises(UserError, match="empty prompt") as caught:
        run(settings(), evaluation_job(tmp_path, parrot, [*texts(2), {"id": "x", "prompt": "", "completion": "a"}]))
    assert caught.value.problems[0].where.line == 3


@pytest.mark.parametrize("architecture", ["bloom", "falcon", "gpt2", "llama"])
def test_more_tokens_than_positions_are_refused(tmp_path, architecture):
    model = make_model(tmp_path / "model", architecture)
    with pytest.raises(UserError, match="has room for 4 before the answer"):
        run(settings(tasks={"words": TaskEvaluation(max_new_tokens=60)}), evaluation_job(tmp_path, model))


def test_long_prompts_are_cut_or_left_out_by_policy_and_counted(tmp_path, parrot):
    long = {"id": "long", "prompt": "say one two three " * 30, "completion": "one"}
    rows = [*texts(3), long]
    cut = run(settings(over_length="truncate_prompt_left"), evaluation_job(tmp_path / "cut", parrot, rows))["words"]
    assert (cut["rows_in"], cut["rows_out"], cut["truncated"], cut["left_out"]) == (4, 4, 1, {})
    dropped = run(settings(over_length="drop"), evaluation_job(tmp_path / "drop", parrot, rows))["words"]
    assert (dropped["rows_in"], dropped["rows_out"], dropped["left_out"]) == (4, 3, {"over length": 1})
    limited = run(settings(rows=2), evaluation_job(tmp_path / "limit", parrot, texts(5)))["words"]
    assert (limited["rows_in"], limited["rows_out"], limited["left_out"]) == (5, 2, {"not asked": 3})


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "config.json").unlink(), "no config.json"),
        (lambda folder: (folder / "model.safetensors").unlink(), "cannot be loaded"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"junk"), "cannot be loaded"),
        (lambda folder: (folder / "config.json").write_text("{"), "cannot be loaded"),
        (lambda folder: (folder / "config.json").write_text('{"model_type": "unheard-of"}'), "cannot be loaded"),
        (lambda folder: (folder / "tokenizer.json").unlink(), "no tokenizer.json"),
        (lambda folder: (folder / "tokenizer.json").write_text("{"), "this is no tokenizer"),
        (lambda folder: (folder / "tokenizer_config.json").write_text("{}"), "has no eos_token"),
        (lambda folder: (folder / "tokenizer_config.json").write_text('{"eos_token": "</s>"}'), "is no token of tokenizer.json"),
    ],
)
def test_a_broken_model_folder_is_the_users_matter(tmp_path, damage, message):
    model = make_model(tmp_path / "model")
    damage(model)
    with pytest.raises(UserError, match=message):
        run(settings(), evaluation_job(tmp_path, model))


def test_weights_that_lack_some_are_refused_rather_than_filled_with_random_numbers(tmp_path):
    from safetensors.torch import load_file, save_file

    model = make_model(tmp_path / "model")
    weights = load_file(model / "model.safetensors")
    del weights[sorted(weights)[0]]
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match="lacks 1 weights"):
        run(settings(), evaluation_job(tmp_path, model))


def test_remote_code_is_never_run(tmp_path):
    model = make_model(tmp_path / "model")
    config = json.loads((model / "config.json").read_text()) | {
        "model_type": "own",
        "auto_map": {"AutoModelForCausalLM": "own.Own", "AutoConfig": "own.Own"},
    }
    (model / "config.json").write_text(json.dumps(config))
    (model / "own.py").write_text("raise SystemExit('remote code was run')")
    with pytest.raises(UserError, match="cannot be loaded"):
        run(settings(), evaluation_job(tmp_path, model))
