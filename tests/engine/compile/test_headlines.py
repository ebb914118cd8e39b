"""Headline numbers: values that the evaluation measures, few, and in the order of the spec; the step reads the facts of two others."""

from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.compile.headlines import headline, headlines
from engine.core.graph import measured_by, metrics_path
from engine.spec.judge import Judge
from engine.spec.sections import Evaluation
from stages.evaluate.metrics import JsonValidity, Metric
from stages.generate.teachers.chat import Chat
from stages.kinds import KINDS
from stages.score import WITHOUT_BETTER
from tests.engine.compile.test_evaluation import graph, spec  # noqa: F401 - a fixture
from tests.stages.evaluate.made import prediction

METRICS = tuple(metric() for metric in get_args(get_args(Metric)[0]))
JUDGE = Judge(teacher=Chat(model="m", base_url="http://localhost:1/v1"), scores=("grace", "truth"))
ROWS = [prediction(calls=[{"name": "f", "arguments": {}}], reference_calls=[{"name": "f", "arguments": {}}], loss=1.0, loss_tokens=2)]


@pytest.mark.parametrize("metric", [*METRICS, JsonValidity(fields={"a": "string"})], ids=lambda metric: metric.kind)
def test_the_value_that_stands_for_a_metric_is_one_that_it_measures(metric: Metric):
    assert headline(metric) in {statistic.name for statistic in metric.measure(ROWS)}


@given(st.lists(st.sampled_from(METRICS), min_size=1, max_size=8, unique_by=lambda metric: metric.kind), st.none() | st.just(JUDGE))
def test_they_are_few_and_rate_answers_if_any_metric_does(metrics: list[Metric], judge: Judge | None):
    found = headlines(Evaluation(metrics=tuple(metrics), judge=judge))
    assert 1 <= len(found) == len(set(found)) <= 4
    assert (found[0] == "judge_grace") == (judge is not None)
    rated = [headline(metric) for metric in metrics if metric.kind not in WITHOUT_BETTER]
    own = [name for name in found if not name.startswith("judge_")]
    assert own == rated[: len(own)] if rated or judge else set(own) <= WITHOUT_BETTER


def test_the_step_reads_the_facts_of_the_evaluation_and_of_the_training(graph):  # noqa: F811
    found = graph(spec("one", ["a"]), spec("two", ["a", "b"], 'tasks = ["a"]\nmetrics = ["length", "perplexity"]'))
    reads = {role: (item.path, item.producer) for role, item in found["score-two"].inputs.items()}
    assert reads == {
        "evaluation": ("metrics/evaluate-two.json", "evaluate-two"),
        "training": ("metrics/train-two.json", "train-two"),
    }
    parameters = found["score-two"].parameters
    assert parameters.tasks == ("a",) and parameters.metrics == ("perplexity",)
    assert found["score-one"].metrics == "metrics/experiments/one.json" and found["train-one"].metrics == "metrics/train-one.json"


def test_points_of_a_sweep_read_the_facts_of_their_own_steps(graph):  # noqa: F811
    found = graph(spec("x", ["a"], more="sweep.grid.training.steps = [1, 2]"))
    for steps in (1, 2):
        step = found[f"score-x-steps_{steps}"]
        assert {item.path for item in step.inputs.values()} == {f"metrics/{kind}-x-steps_{steps}.json" for kind in ("train", "evaluate")}
        assert step.metrics == f"metrics/experiments/x-steps_{steps}.json"


@given(st.sampled_from(sorted(KINDS)), st.from_regex(r"[a-z0-9][a-z0-9_]*(-[a-z0-9_]+)*", fullmatch=True))
def test_the_path_of_metrics_tells_the_step(kind: str, name: str):
    assert measured_by(metrics_path(kind, f"{kind}-{name}")) == f"{kind}-{name}"
