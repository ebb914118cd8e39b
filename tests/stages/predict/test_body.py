"""Every test row is asked, in any batch size, by one model or several adapters in turn, and what cannot be asked is refused."""

import hashlib
import json

import pytest
import torch

from engine.core.errors import UserError
from stages.models.folders import load_model, load_tokenizer
from stages.predict import Parameters, TaskPrediction
from stages.predict.body import run
from stages.predict.decoding import Sample
from stages.rows.predictions import read_predictions
from stages.train.methods import Lora
from tests.stages.initialize.tiny import WORDS, contents, make_job, make_model, texts, write_lines


def settings(**values):
    given = {"tasks": {"words": TaskPrediction(max_new_tokens=8)}, "threads": 1}
    return Parameters(**(given | values))


def asking_job(folder, model, rows=None, **inputs):
    test = write_lines(folder / "test.jsonl", texts(20) if rows is None else rows)
    return make_job(folder / "job", {"model": model, "test/words": test, **inputs})


def made_by(job, task="words"):
    return [json.loads(line) for line in (job.output / f"predictions-{task}.jsonl").read_text().splitlines()]


def share(made, right):
    return sum(map(right, made)) / len(made)


def test_a_model_that_has_learnt_its_task_answers_right_and_stops(tmp_path, parrot):
    job = asking_job(tmp_path, parrot)
    metrics = run(settings(), job)
    made = made_by(job)
    assert metrics["words"]["rows_out"] == 20 and metrics["words"]["left_out"] == {}
    assert share(made, lambda row: row["answer"].strip() == row["reference"].strip()) >= 0.9
    assert share(made, lambda row: row["finish_reason"] == "stop") >= 0.9
    assert metrics["words"]["tokens"] == sum(row["tokens"] for row in made)
    assert [row["id"] for row in made] == [row["id"] for row in texts(20)], "the order of the test split"
    assert {row["task"] for row in made} == {"words"} and {row["loss"] for row in made} == {None}
    assert all("<|" not in row["answer"] for row in made)
    assert len(read_predictions(job.output / "predictions-words.jsonl", "words")) == 20


def test_the_result_does_not_depend_on_the_batch(tmp_path, parrot):
    results = []
    for size in (1, 3, 64):
        job = asking_job(tmp_path / str(size), parrot)
        results.append((run(settings(batch_rows=size), job), contents(job.output)))
    assert results[0] == results[1] == results[2]


def test_an_answer_that_is_cut_off_has_not_ended(tmp_path, parrot):
    job = asking_job(tmp_path, parrot)
    assert run(settings(tasks={"words": TaskPrediction(max_new_tokens=1)}), job)["words"]["tokens"] == 20
    assert all(row["tokens"] == 1 and row["finish_reason"] == "length" for row in made_by(job))


def test_the_cap_takes_the_rows_with_the_smallest_hash_of_the_id(tmp_path, parrot):
    job = asking_job(tmp_path, parrot)
    metrics = run(settings(rows=5), job)
    ids = [str(row["id"]) for row in texts(20)]
    expected = set(sorted(ids, key=lambda identifier: hashlib.sha256(identifier.encode()).digest())[:5])
    assert metrics["words"]["rows_out"] == 5
    assert [row["id"] for row in made_by(job)] == [identifier for identifier in ids if identifier in expected]


def make_adapter(model_folder, folder, scale, seed=0, **settings):
    """A LoRA adapter whose second matrices, and all that SETTINGS train in full are drawn with deviation SCALE: 0 changes nothing."""
    torch.manual_seed(seed)
    method = Lora(r=4, **settings)
    model = method.prepare(load_model(model_folder))
    for key, weight in model.named_parameters():
        if "lora_B" in key or (weight.requires_grad and "lora_" not in key):
            torch.nn.init.normal_(weight, std=scale)
    folder.mkdir(parents=True)
    method.save(model, folder)
    return folder


def test_an_untrained_adapter_changes_nothing_and_a_trained_one_does(tmp_path, parrot):
    results = []
    for name, scale in (("none", None), ("fresh", 0.0), ("disturbed", 1.0)):
        inputs = {} if scale is None else {"adapter": make_adapter(parrot, tmp_path / name / "adapter", scale)}
        job = asking_job(tmp_path / name, parrot, **inputs)
        run(settings(), job)
        results.append(made_by(job))
    assert results[0] == results[1] != results[2]


def test_adapters_in_turn_on_one_base_answer_as_each_does_alone(tmp_path, parrot):
    folders = {name: make_adapter(parrot, tmp_path / name, 0.5, seed) for seed, name in enumerate(("one", "two", "three"))}
    together = asking_job(tmp_path / "together", parrot, **{f"adapter/{name}": folder for name, folder in folders.items()})
    metrics = run(settings(likelihood=True), together)
    assert sorted(metrics) == ["one", "three", "two"] and metrics["one"]["words"]["rows_out"] == 20
    files = set()
    for name, folder in folders.items():
        alone = asking_job(tmp_path / "alone" / name, parrot, adapter=folder)
        run(settings(likelihood=True), alone)
        assert contents(together.output / name) == contents(alone.output)
        files.add(contents(alone.output)["predictions-words.jsonl"])
    assert len(files) == 3, "the adapters differ"


@pytest.mark.parametrize("order", ["ab", "ba"])
@pytest.mark.parametrize(
    ("architecture", "replaces"),
    [
        ("llama", {"modules_to_save": ("lm_head",)}),
        ("llama", {"modules_to_save": ("norm", "mlp")}),
        ("gpt2", {"bias": "all"}),
        ("gpt2", {"bias": "lora_only"}),
    ],
)
def test_an_adapter_that_replaces_weights_leaves_the_base_to_the_others_as_it_was(tmp_path, architecture, replaces, order):
    model = make_model(tmp_path / "model", architecture, initializer_range=0.2)
    made = {"a": replaces, "b": {}}
    folders = {name: make_adapter(model, tmp_path / name, 0.5, seed, **made[name]) for seed, name in enumerate("ab")}
    # Adapters take turns in the order of their names.
    names = dict(zip("ab", order, strict=True))
    together = asking_job(tmp_path / "together", model, **{f"adapter/{names[name]}": folder for name, folder in folders.items()})
    run(settings(likelihood=True), together)
    for name, folder in folders.items():
        alone = asking_job(tmp_path / "alone" / name, model, adapter=folder)
        run(settings(likelihood=True), alone)
        assert contents(together.output / names[name]) == contents(alone.output), name


@pytest.mark.parametrize("architecture", ["falcon", "llama", "gpt2"])
def test_sampled_answers_depend_on_the_row_and_the_seed_alone(tmp_path, architecture):
    model = make_model(tmp_path / "model", architecture, initializer_range=0.2)
    answers = {}
    rows = texts(12)
    for name, size, seed, asked in (("all", 64, 1, rows), ("few", 5, 1, rows[::-1]), ("single", 1, 1, rows), ("other", 64, 2, rows)):
        job = asking_job(tmp_path / name, model, asked)
        run(settings(decoding=Sample(seed=seed, temperature=1.5, top_k=50, top_p=0.9), batch_rows=size), job)
        answers[name] = {row["id"]: row["answer"] for row in made_by(job)}
    assert answers["all"] == answers["few"] == answers["single"] != answers["other"]
    assert len(set(answers["all"].values())) > 6


def test_the_likelihood_of_references_is_that_of_the_model(tmp_path, parrot):
    job = asking_job(tmp_path, parrot)
    run(settings(likelihood=True), job)
    model, tokenizer = load_model(parrot), load_tokenizer(parrot)
    for row in made_by(job)[:6]:
        prompt, target = tokenizer.encode(row["prompt"]), [*tokenizer.encode(row["reference"]), tokenizer.eos]
        with torch.no_grad():
            logits = model(torch.tensor([prompt + target])).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
        expected = -sum(float(logits[place, token]) for place, token in enumerate(target))
        assert row["loss"] == pytest.approx(expected, abs=1e-3) and row["loss_tokens"] == len(target)


def test_held_out_text_is_read_and_not_answered(tmp_path, parrot):
    prose = write_lines(
        tmp_path / "prose.jsonl", [{"id": str(n), "prompt": "", "completion": f"say {w}: {w}" * 9} for n, w in enumerate(WORDS)]
    )
    job = asking_job(tmp_path, parrot, **{"test/prose": prose})
    metrics = run(settings(held_out=("prose",)), job)
    made = made_by(job, "prose")
    assert metrics["prose"]["rows_out"] == len(WORDS) and metrics["prose"]["tokens"] == 0
    assert all(row["answer"] is None and row["finish_reason"] is None and row["loss"] > 0 for row in made)
    tokens = len(load_tokenizer(parrot).encode(made[0]["reference"]))
    # The first token has nothing before it, and the end-of-sequence token is one more.
    assert made[0]["loss_tokens"] == min(tokens + 1, 64) - 1


def test_each_task_has_its_own_file_limit_and_numbers(tmp_path, parrot):
    other = write_lines(tmp_path / "other.jsonl", texts(3))
    job = asking_job(tmp_path, parrot, **{"test/other": other})
    metrics = run(settings(tasks={"words": TaskPrediction(max_new_tokens=8), "other": TaskPrediction(max_new_tokens=1)}), job)
    assert metrics["words"]["rows_out"] == 20 and metrics["other"]["rows_out"] == 3
    assert metrics["other"]["tokens"] == 3 < metrics["words"]["tokens"]
    assert set(contents(job.output)) == {"predictions-other.jsonl", "predictions-words.jsonl"}


def test_rows_with_lone_surrogates_are_left_out_and_counted(tmp_path, parrot):
    job = asking_job(tmp_path, parrot, [*texts(3), {"id": "x", "prompt": "\ud800", "completion": "a"}])
    metrics = run(settings(), job)
    assert (metrics["words"]["rows_out"], metrics["words"]["left_out"]) == (3, {"lone surrogate": 1})


def test_an_empty_test_split_says_what_to_change(tmp_path, parrot):
    with pytest.raises(UserError, match="no test rows") as caught:
        run(settings(), asking_job(tmp_path, parrot, []))
    assert "tasks.words.split.test" in caught.value.problems[0].hint


def test_validation_rows_are_asked_as_test_rows_are(tmp_path, parrot):
    test = asking_job(tmp_path / "test", parrot)
    same = make_job(tmp_path / "job", {"model": parrot, "validation/words": test.inputs["test/words"]})
    assert run(settings(), same) == run(settings(), test) and contents(same.output) == contents(test.output)
    empty = make_job(tmp_path / "empty", {"model": parrot, "validation/words": write_lines(tmp_path / "none.jsonl", [])})
    with pytest.raises(UserError, match="no validation rows") as caught:
        run(settings(), empty)
    assert "tasks.words.split.validation" in caught.value.problems[0].hint


def test_an_empty_prompt_is_located(tmp_path, parrot):
    with pytest.raises(UserError, match="empty prompt") as caught:
        run(settings(), asking_job(tmp_path, parrot, [*texts(2), {"id": "x", "prompt": "", "completion": "a"}]))
    assert caught.value.problems[0].where.line == 3


def test_positions_without_end_go_as_far_as_the_answer(tmp_path):
    model = make_model(tmp_path / "model", "bloom")
    job = asking_job(tmp_path, model, texts(2))
    run(settings(tasks={"words": TaskPrediction(max_new_tokens=70)}), job)
    assert all(row["finish_reason"] == "stop" or row["tokens"] == 70 for row in made_by(job)), "64 is what the model was made for"


@pytest.mark.parametrize("architecture", ["falcon", "gpt2", "llama"])
def test_more_tokens_than_positions_are_refused(tmp_path, architecture):
    model = make_model(tmp_path / "model", architecture)
    with pytest.raises(UserError, match="has room for only 4 before the answer"):
        run(settings(tasks={"words": TaskPrediction(max_new_tokens=60)}), asking_job(tmp_path, model))


def test_long_prompts_are_cut_or_left_out_by_policy_and_counted(tmp_path, parrot):
    long = {"id": "long", "prompt": "say one two three " * 30, "completion": "one"}
    rows = [*texts(3), long]
    cut = run(settings(over_length="truncate_prompt_left"), asking_job(tmp_path / "cut", parrot, rows))["words"]
    assert (cut["rows_in"], cut["rows_out"], cut["truncated"], cut["left_out"]) == (4, 4, 1, {})
    dropped = run(settings(over_length="drop"), asking_job(tmp_path / "drop", parrot, rows))["words"]
    assert (dropped["rows_in"], dropped["rows_out"], dropped["left_out"]) == (4, 3, {"over length": 1})
    limited = run(settings(rows=2), asking_job(tmp_path / "limit", parrot, texts(5)))["words"]
    assert (limited["rows_in"], limited["rows_out"], limited["left_out"]) == (5, 2, {"not asked": 3})


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "config.json").unlink(), "config.json is missing"),
        (lambda folder: (folder / "model.safetensors").unlink(), "cannot load the model"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"junk"), "cannot load the model"),
        (lambda folder: (folder / "config.json").write_text("{"), "cannot load the model"),
        (lambda folder: (folder / "config.json").write_text('{"model_type": "unheard-of"}'), "cannot load the model"),
        (lambda folder: (folder / "tokenizer.json").unlink(), "cannot load the tokenizer|tokenizer.json is missing"),
        (lambda folder: (folder / "tokenizer.json").write_text("{"), "the tokenizers library cannot load this file"),
        (lambda folder: (folder / "tokenizer_config.json").write_text("{}"), "has no eos_token"),
        (lambda folder: (folder / "tokenizer_config.json").write_text('{"eos_token": "</s>"}'), "is not a token of tokenizer.json"),
    ],
)
def test_a_broken_model_folder_is_the_users_matter(tmp_path, damage, message):
    model = make_model(tmp_path / "model")
    damage(model)
    with pytest.raises(UserError, match=message):
        run(settings(), asking_job(tmp_path, model))


def test_weights_that_lack_some_are_refused_rather_than_filled_with_random_numbers(tmp_path):
    from safetensors.torch import load_file, save_file

    model = make_model(tmp_path / "model")
    weights = load_file(model / "model.safetensors")
    del weights[sorted(weights)[0]]
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match="lacks 1 weights"):
        run(settings(), asking_job(tmp_path, model))


def test_remote_code_is_never_run(tmp_path):
    model = make_model(tmp_path / "model")
    config = json.loads((model / "config.json").read_text()) | {
        "model_type": "own",
        "auto_map": {"AutoModelForCausalLM": "own.Own", "AutoConfig": "own.Own"},
    }
    (model / "config.json").write_text(json.dumps(config))
    (model / "own.py").write_text("raise SystemExit('remote code was run')")
    with pytest.raises(UserError, match="cannot load the model"):
        run(settings(), asking_job(tmp_path, model))


def test_all_references_of_a_row_stand_beside_its_answer(tmp_path, parrot):
    rows = texts(3)
    rows[1] = {**rows[1], "references": [rows[1]["completion"], " other"]}
    job = asking_job(tmp_path, parrot, rows)
    run(settings(), job)
    assert [row.get("references") for row in made_by(job)] == [None, rows[1]["references"], None]
    found = read_predictions(job.output / "predictions-words.jsonl", "words")
    assert [one.references for one in found] == [(), tuple(rows[1]["references"]), ()]
    rows[1]["references"] = [" other"]
    with pytest.raises(UserError, match="completion is not among its references"):
        run(settings(), asking_job(tmp_path / "wrong", parrot, rows))
