"""Whom a judge is asked about: every file of predictions once, and nothing changes for a spec without a judge."""

import pytest

from engine.core.errors import UserError
from engine.identity.text import recipe_of
from tests.engine.compile.test_evaluation import graph, spec  # noqa: F401  # a fixture

JUDGE = '\n[evaluation.judge]\nteacher = { model = "m", base_url = "http://127.0.0.1:9/v1" }\n'


def judging(found):
    return {step.name: step.inputs["source/0"].path.removeprefix("artifacts/predict-") for step in found if step.name.startswith("judge-")}


def test_each_file_of_predictions_is_judged_once(graph):  # noqa: F811
    compared = 'compare = ["base", "two"]\n'
    found = graph(spec("one", ["a"], compared + JUDGE), spec("two", ["a", "b"], 'compare = ["base"]' + JUDGE))
    assert judging(found) == {
        "judge-one-a": "one/predictions-a.jsonl",
        "judge-two-a": "two/predictions-a.jsonl",
        "judge-two-b": "two/predictions-b.jsonl",
        "judge-tiny-base-a": "tiny-a/predictions-a.jsonl",
        "judge-tiny-base-b": "tiny-b/predictions-b.jsonl",
    }
    assert found["judge-one-a"].inputs["source/1"].path == "artifacts/split-a/test.jsonl"
    reads = {role: item.path for role, item in found["evaluate-one"].inputs.items() if role.startswith("judge/")}
    assert reads == {
        "judge/predictions/a": "artifacts/judge-one-a/rows.jsonl",
        "judge/compare/base/a": "artifacts/judge-tiny-base-a/rows.jsonl",
        "judge/compare/two/a": "artifacts/judge-two-a/rows.jsonl",
    }
    assert [metric.kind for metric in found["evaluate-one"].parameters.metrics][-1] == "judge"


def test_text_that_is_only_read_is_not_judged_and_adapters_asked_together_are(graph):  # noqa: F811
    found = graph(spec("all", ["a"], 'tasks = ["a"]\nheld_out = ["prose"]\ncompare = ["one"]' + JUDGE), spec("one", ["b"]))
    assert judging(found) == {"judge-all-a": "all/predictions-a.jsonl", "judge-all-others-one-a": "all-others/one/predictions-a.jsonl"}


def test_a_spec_without_a_judge_knows_nothing_of_it(graph):  # noqa: F811
    plain = graph(spec("one", ["a"]))
    assert judging(plain) == {} and all("'judge'" not in str(recipe_of(step.parameters)) for step in plain)
    recipes = {step.name: recipe_of(step.parameters) for step in plain}
    with_judge = graph(spec("one", ["a"], JUDGE))
    moved = {step.name for step in with_judge if recipes.get(step.name) != recipe_of(step.parameters)}
    assert moved == {"judge-one-a", "evaluate-one", "score-one"}


def test_points_of_a_sweep_are_judged_each(graph):  # noqa: F811
    found = graph(
        spec("one", ["a"], 'compare = ["base"]' + JUDGE + "\n[sweep.grid]\ntraining.method.r = [1, 2]\n".replace("method.r", "epochs"))
    )
    assert set(judging(found)) == {"judge-one-a-epochs_1", "judge-one-a-epochs_2", "judge-tiny-base-a"}
    assert found["evaluate-one-epochs_1"].inputs["judge/predictions/a"].producer == "judge-one-a-epochs_1"


@pytest.mark.parametrize(
    ("more", "what"),
    [
        ('prompt = "{{ answer }}"', "unknown variable 'answer' in the judge's prompt"),
        ('prompt = "{{ prediction }} {{ fields.text }}"', "uses the column 'text', which is not in the carry of task 'a'"),
        ('prompt = "{{ prediction"', "invalid Jinja template"),
        ("system = \"{{ fields['text'] }}\"", "the judge's system uses the column 'text'"),
        ('prompt = { file = "gone.jinja" }', "gone.jinja"),
        ('prompt = { file = "../up.jinja" }', "is outside the workspace"),
        ('teacher.json_field = "x"', "json_field"),
    ],
)
def test_a_judge_that_cannot_be_asked_is_found_before_anything_runs(graph, more, what):  # noqa: F811
    with pytest.raises(UserError) as caught:
        graph(spec("one", ["a"], JUDGE + more))
    assert what in str(caught.value) and caught.value.problems[0].where.line


def test_two_judges_need_two_names(graph):  # noqa: F811
    compared = 'compare = ["base"]\n' + JUDGE
    specs = (spec("one", ["a"], compared), spec("two", ["a"], compared + "highest = 9\n"))
    with pytest.raises(UserError, match="two different steps are named 'judge-tiny-base-a'"):
        graph(*specs)
    found = graph(specs[0], specs[1] + 'name = "strict"\n')
    assert {"judge-tiny-base-a", "judge-tiny-base-a-strict"} <= judging(found).keys()
