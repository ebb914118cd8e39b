"""`[training] objective = "distill"`: one step of the teacher for all of its students, and what is refused before anything runs."""

import json
import shutil

import pytest

from engine.checks.teacher_vocabulary import unlike_vocabularies
from engine.compile.compiler import compile_each
from engine.plan.decide import Action, Decision, Plan
from engine.plan.step_estimates import facts_of
from engine.spec.load import load_specs
from tests.support.memory_store import MemoryStore
from tests.support.toys import model, toy

DISTILL = 'objective = { kind = "distill", teacher = "large", top_k = 8 }\n'
LARGE = toy(name="large", base=model(name="big"))


@pytest.fixture
def compiled(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"word": "red"}\n')

    def compiled(**specs):
        for name, text in specs.items():
            (tmp_path / f"{name}.toml").write_text(text)
        return compile_each(load_specs([tmp_path / f"{name}.toml" for name in specs], tmp_path), root=tmp_path)

    return compiled


def test_the_step_reads_the_teachers_weights_the_students_tokens_and_both_tokenizers(compiled):
    graph = compiled(large=LARGE, toy=toy(more=DISTILL)).graph()
    step, training = graph["logits-large-a-tiny-top8"], graph["train-toy"]
    assert training.inputs["logits/a"].path == step.artifact
    assert step.inputs["model"].path == "artifacts/train-large"
    assert step.inputs["train"] == training.inputs["tokens/a"] and step.inputs["validation"] == training.inputs["validation/a"]
    assert step.inputs["student/tokenizer.json"].path == "artifacts/initialize-tiny/tokenizer.json"
    assert step.inputs["teacher/tokenizer.json"].path == "artifacts/initialize-big/tokenizer.json"
    assert (step.parameters.top_k, step.parameters.precision) == (8, "float32")


def test_an_adapter_and_a_model_without_a_training_can_teach(compiled):
    adapter = toy(name="large", base='experiment = "first"', method='"lora"')
    graph = compiled(first=toy(name="first"), large=adapter, toy=toy(more=DISTILL, base='experiment = "first"')).graph()
    step = graph["logits-large-a-top8"]
    assert (step.inputs["model"].path, step.inputs["adapter"].path) == ("artifacts/train-first", "artifacts/train-large")
    untrained = LARGE[: LARGE.index("[mixture]")]
    step = compiled(large=untrained, toy=toy(more=DISTILL)).graph()["logits-large-a-tiny-top8"]
    assert step.inputs["model"].path == "artifacts/initialize-big"


def test_a_sweep_over_temperature_weight_and_rate_has_one_step_of_the_teacher(compiled):
    values = ("objective.temperature = [1.0, 2.0]", "objective.alpha = [0.2, 0.8]", "learning_rate = [1e-4, 1e-3]")
    sweep = "\n".join(["[sweep.grid]", *(f"training.{value}" for value in values), ""])
    found = compiled(large=LARGE, toy=toy(more=DISTILL + sweep))
    assert found.problems == []
    kinds = [step.kind_name for step in found.steps]
    assert kinds.count("logits") == 1 and kinds.count("train") == 1 + 8
    teachers = DISTILL + '[sweep.grid]\ntraining.objective.teacher = ["large", "first"]\n'
    graph = compiled(large=LARGE, first=toy(name="first"), toy=toy(more=teachers)).graph()
    assert {step.name for step in graph if step.kind_name == "logits"} == {"logits-large-a-tiny-top8", "logits-first-a-top8"}


def test_other_numbers_of_tokens_and_precisions_are_other_steps(compiled):
    more, half = DISTILL.replace("8", "9"), DISTILL + 'precision = "bfloat16"\n'
    found = compiled(large=LARGE, toy=toy(more=DISTILL), two=toy(name="two", more=more), three=toy(name="three", more=half))
    assert found.problems == []
    names = {step.name for step in found.steps if step.kind_name == "logits"}
    assert names == {f"logits-large-a-tiny-{rest}" for rest in ("top8", "top9", "top8-bfloat16")}


@pytest.mark.parametrize(
    ("specs", "what"),
    [
        ({"toy": toy(more=DISTILL)}, "no experiment 'large' in this workspace"),
        ({"toy": toy(more=DISTILL.replace("large", "toy"))}, "a teacher learns from its own student: toy -> toy"),
        (
            {"toy": toy(more=DISTILL), "large": toy(name="large", base='experiment = "toy"')},
            "a teacher learns from its own student: toy -> toy",
        ),
    ],
    ids=["missing", "itself", "its student"],
)
def test_teachers_that_there_are_not_or_that_learn_from_their_students_are_located(compiled, specs, what):
    problem = compiled(**specs).problems[0]
    line = next(number for number, line in enumerate(specs["toy"].splitlines(), 1) if line.startswith("objective"))
    assert (problem.what, problem.where.file, problem.where.line) == (what, "toy.toml", line)


def test_encoder_decoders_are_refused(compiled):
    base = 'name = "t"\narchitecture = { kind = "t5", hidden_size = 16, layers = 1, heads = 2 }'
    for specs in ({"toy": toy(more=DISTILL, base=base), "large": LARGE}, {"toy": toy(more=DISTILL), "large": toy(name="large", base=base)}):
        (problem,) = compiled(**specs).problems
        assert problem.what.startswith("distillation is supported for causal models only") and problem.where.file == "toy.toml"


def test_a_teacher_with_another_vocabulary_is_located_if_both_tokenizers_are_here(compiled, tmp_path):
    for name, vocabulary in (("small", {"a": 0, "b": 1}), ("large", {"a": 0, "c": 1})):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps({"model_type": "llama", "vocab_size": 2}))
        (folder / "tokenizer.json").write_text(json.dumps({"model": {"vocab": vocabulary}, "added_tokens": [{"id": 2, "content": "</s>"}]}))
        (folder / "tokenizer_config.json").write_text("{}")
    specs = {"large": toy(name="large", base='path = "large"'), "toy": toy(more=DISTILL, base='path = "small"')}
    graph = compiled(**specs).graph()
    (problem,) = unlike_vocabularies(graph, tmp_path)
    assert problem.what == "the teacher's vocabulary is not the student's: id 1 is 'b' to the student and is 'c' to the teacher"
    assert (problem.where.file, problem.where.line) == ("toy.toml", specs["toy"].splitlines().index(DISTILL.strip()) + 1)
    shutil.copy(tmp_path / "small/tokenizer.json", tmp_path / "large/tokenizer.json")
    assert unlike_vocabularies(graph, tmp_path) == []
    more = toy(more=DISTILL, base='path = "small"', tokenization='special_tokens = ["<|turn|>"]')
    (problem,) = unlike_vocabularies(compiled(**specs | {"toy": more}).graph(), tmp_path)
    assert problem.what.endswith("'<|turn|>' is a token of the student alone")
    both = toy(name="large", base='path = "large"', tokenization='special_tokens = ["<|turn|>"]')
    assert unlike_vocabularies(compiled(large=both, toy=more).graph(), tmp_path) == []


def test_the_plan_tells_the_bytes_before_the_teacher_runs(compiled):
    graph = compiled(large=LARGE, toy=toy(more=DISTILL)).graph()
    step = graph["logits-large-a-tiny-top8"]
    plan = Plan(tuple(Decision(one.name, one.kind_name, Action.RUN if one is step else Action.KEEP) for one in graph))
    counted = {"metrics/tokenize-a-tiny.json": {"train": {"supervised_tokens": 10**9}, "validation": {"supervised_tokens": 10**8}}}
    assert facts_of(step, plan, graph, MemoryStore(files=counted)).sizes == ("50 bytes per supervised token", "~55.0 GB on disk")
    assert facts_of(step, plan, graph, MemoryStore(files={})).sizes == ("50 bytes per supervised token",)
