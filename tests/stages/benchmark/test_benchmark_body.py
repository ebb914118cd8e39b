"""lm-evaluation-harness asks a tiny model local tasks, without a network, and every number is one that can be computed by hand."""

import json

import pytest
import torch

from engine.core.errors import UserError
from stages.benchmark import Parameters
from stages.models.folders import load_model, load_tokenizer
from tests.stages.initialize.tiny import WORDS, contents, make_job, make_model, write_lines

pytest.importorskip("lm_eval")

CHOICE = """
task: which_word
dataset_path: json
dataset_kwargs: {{ data_files: {{ test: {folder}/words.jsonl }} }}
test_split: test
output_type: multiple_choice
doc_to_text: "say {{{{ word }}}}:"
doc_to_choice: ["red", "blue"]
doc_to_target: label
metric_list: [{{ metric: acc, aggregation: mean, higher_is_better: true }}]
"""

ANSWER = """
task: say_it
dataset_path: json
dataset_kwargs: {{ data_files: {{ test: {folder}/words.jsonl }} }}
test_split: test
output_type: generate_until
generation_kwargs: {{ until: [":"], max_gen_toks: 4 }}
doc_to_text: "say {{{{ word }}}}:"
doc_to_target: "{{{{ word }}}}"
metric_list: [{{ metric: exact_match, aggregation: mean, higher_is_better: true }}]
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return make_model(tmp_path_factory.mktemp("model"), "llama", initializer_range=0.2)


@pytest.fixture
def tasks(tmp_path):
    folder = tmp_path / "tasks"
    rows = [{"word": word, "label": number % 2} for number, word in enumerate(WORDS)]
    write_lines(folder / "words.jsonl", rows)
    (folder / "which.yaml").write_text(CHOICE.format(folder=folder))
    (folder / "say.yaml").write_text(ANSWER.format(folder=folder))
    return folder


def run(*arguments):
    from stages.benchmark.body import run as body

    return body(*arguments)


def settings(*names, **values):
    return Parameters(tasks=names, threads=1, **values)


def likelier(model, tokenizer, prompt):
    """Which of two words the model finds likelier after PROMPT."""
    found = []
    for word in (" red", " blue"):
        before, ids = tokenizer.encode(prompt), tokenizer.encode(prompt + word)
        with torch.no_grad():
            logits = model(torch.tensor([ids])).logits[0].log_softmax(-1)
        found.append(sum(float(logits[place - 1, ids[place]]) for place in range(len(before), len(ids))))
    return found[1] > found[0]


def test_the_accuracy_is_that_of_the_models_own_likelihoods(tmp_path, model, tasks):
    job = make_job(tmp_path / "job", {"model": model, "tasks": tasks})
    metrics = run(settings("which_word", "say_it"), job)
    loaded, tokenizer = load_model(model), load_tokenizer(model)
    right = sum(likelier(loaded, tokenizer, f"say {word}:") == bool(number % 2) for number, word in enumerate(WORDS))
    assert metrics["which_word"] == {"rows": len(WORDS), "acc": pytest.approx(right / len(WORDS), abs=1e-6)}
    assert set(metrics["say_it"]) == {"rows", "exact_match"}
    results = json.loads((job.output / "results.json").read_text())["which_word"]
    score = results["scores"]["acc"]
    assert score["low"] <= score["value"] <= score["high"] and results["higher_is_better"] == {"acc": True}
    samples = [json.loads(line) for line in (job.output / "samples-which_word.jsonl").read_text().splitlines()]
    assert [row["doc"]["word"] for row in samples] == WORDS and sum(row["acc"] for row in samples) == right


def test_the_same_model_gives_the_same_bytes_in_any_batch_and_another_adapter_other_samples(tmp_path, model, tasks):
    from stages.train.methods import Lora

    adapted = Lora(r=4).prepare(load_model(model))
    for name, weight in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=1.0)
    (tmp_path / "adapter").mkdir()
    Lora(r=4).save(adapted, tmp_path / "adapter")
    found = []
    for name, size, more in (("one", 64, {}), ("two", 3, {}), ("three", 64, {"adapter": tmp_path / "adapter"})):
        job = make_job(tmp_path / name, {"model": model, "tasks": tasks, **more})
        metrics = run(settings("say_it", limit=6, batch_rows=size), job)
        found.append((metrics, contents(job.output)))
    assert found[0] == found[1] and found[0][0]["say_it"]["rows"] == 6
    assert found[2][1]["samples-say_it.jsonl"] != found[0][1]["samples-say_it.jsonl"]


def test_a_task_that_reads_files_from_elsewhere_is_refused(tmp_path, model, tasks):
    elsewhere = tmp_path / "elsewhere"
    write_lines(elsewhere / "words.jsonl", [{"word": "red", "label": 0}])
    (tasks / "which.yaml").write_text(CHOICE.format(folder=elsewhere))
    with pytest.raises(UserError, match=r"reads .*words.jsonl, which is outside benchmarks.folder"):
        run(settings("which_word"), make_job(tmp_path / "job", {"model": model, "tasks": tasks}))


def test_data_that_is_not_there(tmp_path, model, tasks):
    (tasks / "words.jsonl").unlink()
    with pytest.raises(UserError, match="cannot load the tasks"):
        run(settings("which_word"), make_job(tmp_path / "job", {"model": model, "tasks": tasks}))
