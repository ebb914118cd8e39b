"""Who is asked what: nobody twice, equal questions in one step, and comparisons that cannot be made refused before anything runs."""

import json

import pytest

from engine.core.errors import UserError
from engine.core.workspace import Workspace
from engine.plan.project import Project

MODEL_AND_TASKS = """
[model]
path = "model"
name = "tiny"

[tasks.a]
source = { kind = "synthetic", generator = "reports", rows = 9 }
prompts = ["Say {{ text }}"]
teacher = { kind = "gold", column = "text" }

[tasks.b]
source = { kind = "synthetic", generator = "reports", rows = 9, seed = 2 }
prompts = ["Tell {{ text }}"]
teacher = { kind = "gold", column = "text" }
"""
PART = f"""{MODEL_AND_TASKS}
[tasks.prose]
source = {{ kind = "synthetic", generator = "reports", rows = 9, seed = 3 }}
teacher = {{ kind = "gold", column = "text" }}

[training]
method = "lora"
"""


def spec(name, tasks, evaluation="", more=""):
    return (
        f'extends = ["parts/common.toml"]\n{more}\n[experiment]\nname = "{name}"\n\n[mixture]\ntasks = {json.dumps(tasks)}\n\n'
        f"[evaluation]\n{evaluation}\n"
    )


@pytest.fixture
def graph(tmp_path):
    (tmp_path / "model").mkdir()
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (tmp_path / "model" / name).write_text("{}")
    (tmp_path / "specs/parts").mkdir(parents=True)
    (tmp_path / "specs/parts/common.toml").write_text(PART)

    def make(*specs):
        for number, text in enumerate(specs):
            (tmp_path / f"specs/{number}.toml").write_text(text)
        return Project(Workspace.at(tmp_path)).graph

    return make


VERSUS = '[evaluation.versus]\nteacher = { model = "m", base_url = "http://localhost:1" }'


def test_the_answers_of_every_other_model_are_compared_with_ours(graph):
    found = graph(spec("one", ["a"], f'compare = ["base", "two"]\n{VERSUS}'), spec("two", ["a"]))
    evaluated = found["evaluate-one"].inputs
    for name, whose in (("two", "two"), ("base", "tiny-base")):
        step = found[f"versus-one-{whose}-a"]
        assert evaluated[f"versus/{name}/a"].path == f"{step.artifact}/rows.jsonl"
        assert [step.inputs[f"source/{number}"] for number in range(3)] == [
            evaluated["predictions/a"],
            evaluated[f"compare/{name}/a"],
            found["predict-one"].inputs["test/a"],
        ]
        assert step.parameters.carry == ("id", "ours")
    assert found["evaluate-two"].inputs.keys() == {"predictions/a"}


@pytest.mark.parametrize(
    ("evaluation", "what"),
    [
        (VERSUS, "versus compares with the models in evaluation.compare, which names none"),
        (
            f'compare = ["base"]\n{VERSUS}\nprompt = "{{{{ fields.text }}}}"',
            "uses the column 'text', which is not in the carry of task 'a'",
        ),
        (f'compare = ["base"]\n{VERSUS}\nprompt = "{{{{ prediction }}}}"', "unknown variable 'prediction'"),
    ],
)
def test_verdicts_that_cannot_be_asked_for_are_refused(graph, evaluation, what):
    with pytest.raises(UserError, match=what):
        graph(spec("one", ["a"], evaluation))


def test_validation_rows_are_asked_where_the_spec_says_so(graph):
    found = graph(spec("one", ["a"], 'split = "validation"\ncompare = ["base", "two"]'), spec("two", ["a"], 'compare = ["base"]'))
    asked = {role: item.path for role, item in found["predict-one"].inputs.items() if item.path.startswith("artifacts/split")}
    assert asked == {"validation/a": "artifacts/split-a/validation.jsonl"}
    # The other experiment answers test rows itself: it is asked again.
    assert compared(found, "one") == {
        "compare/base/a": "predict-tiny-a-validation/predictions-a.jsonl",
        "compare/two/a": "predict-one-others/two/predictions-a.jsonl",
    }
    assert compared(found, "two") == {"compare/base/a": "predict-tiny-a/predictions-a.jsonl"}, "each on its own rows"
    with pytest.raises(UserError, match="its split has no validation rows") as caught:
        graph(spec("one", ["a"], 'split = "validation"', more="tasks.a.split.validation = 0.0"))
    assert caught.value.problems[0].where.line


def compared(graph, experiment):
    return {
        role: item.path.removeprefix("artifacts/") for role, item in graph[f"evaluate-{experiment}"].inputs.items() if "compare/" in role
    }


def predicting(graph):
    return {step.name for step in graph if step.kind.name == "predict"}


def test_an_experiment_alone_asks_its_own_model(graph):
    found = graph(spec("one", ["a"]))
    assert predicting(found) == {"predict-one"}
    assert found["predict-one"].inputs["adapter"].path == "artifacts/train-one"
    (reads,) = found["evaluate-one"].inputs.items()
    assert (reads[0], reads[1].path) == ("predictions/a", "artifacts/predict-one/predictions-a.jsonl")


def test_answers_to_the_same_questions_are_read_where_they_are(graph):
    both = 'tasks = ["a", "b"]\n'
    found = graph(spec("one", ["a"], both + 'compare = ["two"]'), spec("two", ["b"], both))
    assert predicting(found) == {"predict-one", "predict-two"}
    assert compared(found, "one") == {f"compare/two/{task}": f"predict-two/predictions-{task}.jsonl" for task in "ab"}


def test_the_base_is_asked_once_a_task_for_all_experiments(graph):
    found = graph(spec("one", ["a"], 'compare = ["base"]'), spec("two", ["a", "b"], 'compare = ["base"]'))
    assert predicting(found) == {"predict-one", "predict-two", "predict-tiny-a", "predict-tiny-b"}
    assert compared(found, "one") == {"compare/base/a": "predict-tiny-a/predictions-a.jsonl"}
    assert set(found["predict-tiny-a"].inputs) == {"model", "test/a"}


def test_adapters_that_lack_answers_are_asked_together(graph):
    found = graph(
        spec("all", ["a", "b"], 'compare = ["one", "two", "base"]'), spec("one", ["a"]), spec("two", ["b"], 'tasks = ["a"]\nrows = 3')
    )
    assert predicting(found) == {"predict-all", "predict-one", "predict-two", "predict-all-others", "predict-tiny-a", "predict-tiny-b"}
    step = found["predict-all-others"]
    assert {role: item.path for role, item in step.inputs.items() if "adapter" in role} == {
        f"adapter/{name}": f"artifacts/train-{name}" for name in ("one", "two")
    }
    assert set(step.parameters.tasks) == {"a", "b"}
    assert compared(found, "all") == {
        "compare/one/a": "predict-one/predictions-a.jsonl",
        "compare/one/b": "predict-all-others/one/predictions-b.jsonl",
        "compare/two/a": "predict-all-others/two/predictions-a.jsonl",
        "compare/two/b": "predict-all-others/two/predictions-b.jsonl",
        "compare/base/a": "predict-tiny-a/predictions-a.jsonl",
        "compare/base/b": "predict-tiny-b/predictions-b.jsonl",
    }


@pytest.mark.parametrize("setting", ['modules_to_save = ["norm"]', 'bias = "all"'])
def test_an_adapter_that_replaces_weights_of_the_base_answers_alone(graph, setting):
    replacing = f'[training]\nmethod = {{ kind = "lora", {setting} }}\n'
    found = graph(
        spec("all", ["a", "b"], 'compare = ["one", "two"]'), spec("one", ["a"]), spec("two", ["b"], 'tasks = ["a"]\nrows = 3', replacing)
    )
    assert predicting(found) == {"predict-all", "predict-one", "predict-two", "predict-all-others", "predict-all-other-two"}
    assert {role for role in found["predict-all-others"].inputs if "adapter" in role} == {"adapter/one"}
    assert {role for role in found["predict-all-other-two"].inputs if "adapter" in role} == {"adapter/two"}
    assert compared(found, "all")["compare/two/b"] == "predict-all-other-two/two/predictions-b.jsonl"


def test_a_trained_base_is_asked_by_its_own_experiment(graph):
    reading = spec("base", ["prose"], 'tasks = ["a"]', more="training.method = 'full'")
    found = graph(reading, spec("one", ["a"], 'compare = ["base"]', more='model = { experiment = "base" }').replace("path", "x"))
    assert predicting(found) == {"predict-base", "predict-one"}
    assert compared(found, "one") == {"compare/base/a": "predict-base/predictions-a.jsonl"}


def test_an_adapter_that_is_trained_further_is_compared_with_itself_before(graph):
    further = spec("two", ["b"], 'tasks = ["a", "b"]\ncompare = ["base"]', more='model = { experiment = "one" }')
    found = graph(spec("one", ["a"]), further)
    assert compared(found, "two") == {
        "compare/base/a": "predict-one/predictions-a.jsonl",
        "compare/base/b": "predict-one-b/predictions-b.jsonl",
    }
    assert found["predict-one-b"].inputs["adapter"].path == "artifacts/train-one"
    assert found["predict-two"].inputs["adapter"].path == "artifacts/train-two"


def test_a_list_that_all_experiments_share_may_name_each_of_them(graph):
    both = 'tasks = ["a"]\ncompare = ["one", "two"]'
    found = graph(spec("one", ["a"], both), spec("two", ["b"], both))
    assert list(compared(found, "one")) == ["compare/two/a"] and list(compared(found, "two")) == ["compare/one/a"]
    assert found["evaluate-one"].parameters.compare == ("two",)


def test_likelihoods_are_measured_where_a_metric_or_held_out_text_needs_them(graph):
    found = graph(spec("one", ["a"], 'metrics = ["perplexity"]'), spec("two", ["a"], 'held_out = ["prose"]'), spec("three", ["b"]))
    assert [found[f"predict-{name}"].parameters.likelihood for name in ("one", "two", "three")] == [True, False, False]
    assert "test/prose" in found["predict-two"].inputs and found["evaluate-two"].parameters.held_out == ("prose",)


def test_answers_without_likelihoods_are_not_taken_for_those_that_have_them(graph):
    measured = 'metrics = ["perplexity", "length"]'
    one = spec("one", ["a"], 'metrics = ["perplexity"]\ncompare = ["two", "three"]')
    found = graph(one, spec("two", ["a"]), spec("three", ["a"], measured))
    assert compared(found, "one") == {
        "compare/two/a": "predict-one-others/two/predictions-a.jsonl",
        "compare/three/a": "predict-three/predictions-a.jsonl",
    }


TWO = spec("two", ["a"])
FULL = spec("two", ["b"], more="training.method = 'full'")


@pytest.mark.parametrize(
    ("evaluation", "other", "messages"),
    [
        ('compare = ["tow"]', TWO, ["no experiment 'tow' in this workspace", "specs/0.toml:10:12", "did you mean 'two'?"]),
        ('compare = ["base"]', spec("base", ["b"]), ["'base' is ambiguous", "specs/0.toml:10:12", "rename the experiment 'base'"]),
        ('compare = ["two"]', FULL, ["cannot compare with 'two'", "evaluates task 'a' differently", "specs/0.toml:10:12"]),
        ('tasks = ["prose"]', TWO, ["task 'prose' has an empty prompt", "evaluation.held_out"]),
        ('held_out = ["prse"]', TWO, ["no task 'prse'", "specs/0.toml:10:13", "did you mean 'prose'?"]),
        ('tasks = ["a"]\nheld_out = ["a"]', TWO, ["task 'a' is in evaluation.tasks already"]),
        ('compare = ["two", "two"]', TWO, ["a name is listed twice: remove one of them"]),
        ('metrics = ["roug"]', TWO, ["did you mean 'rouge'?"]),
        ("statistics = { confidence = 1.5 }", TWO, ["specs/0.toml:10"]),
    ],
)
def test_what_cannot_be_compared_is_said_before_anything_runs(graph, evaluation, other, messages):
    with pytest.raises(UserError) as caught:
        graph(spec("one", ["a"], evaluation), other)
    assert all(message in str(caught.value) for message in messages), str(caught.value)
