"""The steps of sweeps: equal ones are one, the others carry the labels of what they depend on, and everything finds them."""

import math
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.artifacts.verify import find
from engine.core.errors import UserError, did_you_mean
from engine.core.graph import Graph
from engine.core.workspace import Workspace
from engine.identity.text import canonical, recipe_of
from engine.plan.project import Project
from engine.plan.why import step_name
from engine.spec.notation import dotted, toml
from tests.engine.plan import test_decide as toys

PART = """
[model]
name = "tiny"
architecture = { kind = "llama", hidden_size = 32 }

[tasks.a]
source = { kind = "synthetic", generator = "reports", rows = 9 }
prompts = ["Say {{ text }}"]
teacher = { kind = "gold", column = "text" }

[mixture]
tasks = ["a"]

[training]
method = "lora"
"""


@pytest.fixture
def project(tmp_path):
    (tmp_path / "specs/parts").mkdir(parents=True)
    (tmp_path / "specs/parts/common.toml").write_text(PART)

    def make(**specs: str) -> Project:
        for path in tmp_path.glob("specs/*.toml"):
            path.unlink()
        for name, text in specs.items():
            extends = "" if text.startswith("extends") else 'extends = ["parts/common.toml"]\n'
            (tmp_path / f"specs/{name}.toml").write_text(f'{extends}experiment.name = "{name}"\n{text}\n')
        return Project(Workspace.at(tmp_path))

    return make


def names(project: Project) -> set[str]:
    return {step.name for step in project.graph}


def texts(project: Project) -> dict[str, str]:
    return dict(project.identities)


def problem_of(project: Project) -> str:
    with pytest.raises(UserError) as caught:
        project.graph  # noqa: B018 - compiling is what fails
    (problem,) = caught.value.problems
    return f"{problem.what} | {problem.where} | {problem.hint}"


@pytest.mark.parametrize(
    "grid, several",
    [
        ("training.method.r = [1, 4]", {"train-x", "predict-x", "evaluate-x", "score-x"}),
        ("training.steps = [1, 2]", {"mix-x", "train-x", "predict-x", "evaluate-x", "score-x"}),
        ("experiment.seed = [0, 1]", {"mix-x", "train-x", "predict-x", "evaluate-x", "score-x"}),
        ("evaluation.decoding = ['greedy', { kind = 'sample', temperature = 0.5 }]", {"predict-x", "evaluate-x", "score-x"}),
        ("evaluation.metrics = [['length'], ['exact_match']]", {"evaluate-x", "score-x"}),
        ("tokenization.max_length = [32, 64]", {"tokenize-a-tiny", "mix-x", "train-x", "predict-x", "evaluate-x", "score-x"}),
        (
            "tasks.a.split.seed = [0, 1]",
            {"split-a", "initialize-tiny", "tokenize-a-tiny", "mix-x", "train-x", "predict-x", "evaluate-x", "score-x"},
        ),
    ],
)
def test_only_what_depends_on_the_field_is_multiplied(project, grid, several):
    alone = names(project(x=""))
    swept = project(x=f"sweep.grid.{grid}")
    labels = [spec.point.labels[0] for spec in swept.specs]
    assert len(labels) == 2
    wanted = {name for plain in alone for name in ([f"{plain}-{label}" for label in labels] if plain in several else [plain])}
    assert names(swept) == wanted


def test_a_sweep_of_one_point_is_the_plain_spec(project):
    plain = texts(project(x="training.method.r = 4\nexperiment.seed = 3"))
    assert texts(project(x="sweep.grid.training.method.r = [4]\nsweep.grid.experiment.seed = [3]")) == plain
    assert texts(project(x="[[sweep.points]]\ntraining.method.r = 4\nexperiment.seed = 3")) == plain


def test_each_point_has_the_recipes_of_the_plain_spec(project):
    swept = project(x="sweep.grid.training.method.r = [1, 4]")
    found = {spec.name: swept.graph[f"train-{spec.name}"].parameters for spec in swept.specs}
    for rank in (1, 4):
        plain = project(x=f"training.method.r = {rank}").graph["train-x"].parameters
        assert found[f"x-r_{rank}"] == plain


def test_two_axes_each_multiply_what_depends_on_them(project):
    found = names(project(x="sweep.grid.training.method.r = [1, 4]\nsweep.grid.experiment.seed = [0, 1]"))
    assert {name for name in found if name.startswith("mix")} == {"mix-x-seed_0", "mix-x-seed_1"}
    assert len({name for name in found if name.startswith("train")}) == 4


def test_listed_points_share_what_is_equal_among_some(project):
    points = ["training.steps = 1", "training.steps = 1\ntraining.method.r = 2", "training.steps = 2"]
    found = names(project(x="".join(f'[[sweep.points]]\nname = "{name}"\n{text}\n' for name, text in zip("pqr", points, strict=True))))
    assert {name for name in found if name.startswith("mix")} == {"mix-x-p", "mix-x-r"}
    assert {name for name in found if name.startswith("train")} == {"train-x-p", "train-x-q", "train-x-r"}


def test_what_another_spec_makes_already_is_shared(project):
    """The plain spec keeps its names, and the point that equals it takes them."""
    before = texts(project(y="tasks.a.split.seed = 1"))
    both = project(x="sweep.grid.tasks.a.split.seed = [0, 1]", y="tasks.a.split.seed = 1")
    assert before.items() <= texts(both).items()
    assert {name for name in names(both) if name.startswith("split")} == {"split-a", "split-a-seed_0"}


def test_a_clash_with_another_spec_is_refused(project):
    text = problem_of(project(x="sweep.grid.training.method.r = [1, 4]", y="tasks.a.split.seed = 1"))
    assert text.startswith("two different steps are named 'split-a'")


def test_a_spec_that_takes_the_sweep_back_reads_what_its_point_made(project):
    x = "sweep.grid.training.method.r = [1, 4]"
    both = project(x=x, best='extends = ["x.toml"]\nsweep = false\ntraining.method.r = 4')
    assert names(both) - names(project(x=x)) == {"evaluate-best", "score-best"}
    both = project(x=x, best='extends = ["x.toml"]\nsweep = false\ntraining.method.r = 4')
    assert both.graph["train-best"].name == "train-x-r_4"
    assert both.graph["evaluate-best"].inputs["predictions/a"].producer == "predict-x-r_4"
    other = project(x=x, best='extends = ["x.toml"]\nsweep = false\ntraining.method.r = 2')
    assert {"train-best", "predict-best"} <= names(other) and "mix-best" not in names(other)


def test_points_are_found_by_name_and_by_file(project):
    swept = project(x="sweep.grid.training.method.r = [1, 4]", y="")
    assert swept.select(["x-r_4"]).experiments == ("x-r_4",)
    assert "train-x-r_1" not in swept.select(["x-r_4"]).graph and "mix-x" in swept.select(["x-r_4"]).graph
    assert swept.select(["x"]).experiments == swept.select([str(swept.root / "specs/x.toml")]).experiments == ("x-r_1", "x-r_4")
    assert [spec.name for spec in swept.chosen([Path("x-r_4")])] == ["x-r_4"]
    assert [spec.name for spec in swept.chosen([Path("y")])] == ["y"]
    for wrong, near in {"x-r_5": "x-r_4", "train-x-r": "train-x-r_"}.items():
        with pytest.raises(UserError, match=f"no such spec, experiment or step: {wrong}") as caught:
            swept.select([wrong])
        assert near in str(caught.value)


def test_who_wants_one_point_is_told_of_them(project):
    swept = project(x="sweep.grid.training.method.r = [1, 4]", y="")
    swept.refuse_sweep("y")
    for ask in (swept.refuse_sweep, lambda name: find(swept, name)):
        with pytest.raises(UserError, match="x is a sweep of 2 points: name one of them"):
            ask("x")


def test_a_long_list_of_names_is_cut():
    names = [f"x-r_{number}" for number in range(200)]
    assert did_you_mean("what", [*names, *names]).endswith(", and 192 more")
    shown = did_you_mean("evaluate", [*names, "predict-evalu", "train-x"])
    assert "predict-evalu" in shown and "x-r_11" not in shown.split(", "), "the most similar ones"
    assert did_you_mean("q", ["x", "y", "y"]) == "known: x, y"
    assert did_you_mean("aa", [*names, "aaaaaaaaaaa"]) == "known: aaaaaaaaaaa, and 200 more"


def test_why_takes_the_name_of_a_point():
    graph = Graph([toys.step("train-x-r_1"), toys.step("mix-x")])
    assert step_name("x-r_1", graph) == step_name("train-x-r_1", graph) == "train-x-r_1"
    assert step_name("mix-x", graph) == "mix-x" and step_name("x", graph) == "x"


def test_a_step_that_points_share_is_each_ones(project):
    graph = project(x="sweep.grid.evaluation.metrics = [['length'], ['exact_match']]").graph
    assert graph["train-x-metrics_length"] is graph["train-x-metrics_exact_match"] is graph["train-x"]
    part = graph.needed_for(["evaluate-x-metrics_length"])
    assert part["train-x-metrics_length"].name == "train-x" and "evaluate-x-metrics_exact_match" not in part


def test_points_are_compared_and_trained_further_by_name(project):
    x = "sweep.grid.training.method.r = [1, 4]"
    y = 'evaluation.compare = ["x-r_1", "x-r_4"]\n'
    inputs = project(x=x, y=y).graph["evaluate-y"].inputs
    assert {role: item.producer for role, item in inputs.items() if "compare" in role} == {
        "compare/x-r_1/a": "predict-x-r_1",
        "compare/x-r_4/a": "predict-x-r_4",
    }
    further = project(x="training.method = 'full'\nsweep.grid.training.steps = [1, 2]", y='model = { experiment = "x-steps_2" }')
    assert further.graph["train-y"].inputs["model"].producer == "train-x-steps_2"
    text = problem_of(project(x=x, y='evaluation.compare = ["x"]'))
    assert text.startswith("no experiment 'x' in this workspace")
    assert text.endswith("| 'x' is a sweep; name one of its points, such as 'x-r_1'")


def test_points_may_compare_themselves_with_each_other(project):
    swept = project(x='sweep.grid.training.method.r = [1, 4]\nevaluation.compare = ["x-r_1"]')
    # Both start from weights that are one step and are asked the same rows: nobody is asked twice.
    assert swept.graph["evaluate-x-r_4"].inputs["compare/x-r_1/a"].producer == "predict-x-r_1"
    assert "compare/x-r_1/a" not in swept.graph["evaluate-x-r_1"].inputs


def test_a_field_on_which_nothing_depends_is_refused(project):
    text = problem_of(project(x="sweep.grid.experiment.description = ['a', 'b']\nsweep.grid.experiment.seed = [0, 1]"))
    assert text.startswith("no step depends on experiment.description: all its values give the same result | specs/x.toml:3:")


def test_points_that_start_from_each_other_are_refused(project):
    points = "[[sweep.points]]\nname = 'p'\ntraining.steps = 1\n[[sweep.points]]\nname = 'q'\nmodel = { experiment = 'x-p' }"
    text = problem_of(project(x=f"training.method = 'full'\n{points}"))
    assert text.startswith("points of the sweep 'x' start from each other")


def test_what_is_remembered_knows_the_points(project):
    first = project(x="sweep.grid.evaluation.metrics = [['length'], ['exact_match']]")
    wanted = first.outline.graph.aliases
    assert wanted
    again = Project(first.workspace)
    assert dict(again.graph.aliases) == dict(wanted)
    assert again.select(["x-metrics_length"]).graph["train-x-metrics_length"].name == "train-x"


FIELDS = {
    "training.method.r": ["1", "4"],
    "experiment.seed": ["0", "1", "2"],
    "tokenization.max_length": ["32", "64"],
    "tasks.a.split.seed": ["0", "7"],
    "evaluation.metrics": ["['length']", "['exact_match']"],
}


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sets(st.sampled_from(sorted(FIELDS)), min_size=1, max_size=3))
def test_every_point_is_what_the_plain_spec_with_its_values_would_be(project, fields):
    swept = project(x="\n".join(f"sweep.grid.{field} = [{', '.join(FIELDS[field])}]" for field in fields))
    graph, specs = swept.graph, swept.specs
    assert len(specs) == math.prod(len(FIELDS[field]) for field in fields)
    assert len({recipe_and_inputs(step) for step in graph}) == len(graph), "no step is there twice"
    for spec in specs[:: max(1, len(specs) // 2)]:
        values = "\n".join(f"{dotted(path)} = {toml(value)}" for path, value in spec.point.values.items())
        plain = project(x=values).graph
        part = graph.needed_for([f"score-{spec.name}"])
        assert len(part) == len(plain)
        for step in plain:
            found = graph.find(spec.name, step.name)
            assert found.name in part and found.parameters == step.parameters
            assert {role: item.path.split("/", 2)[2:] for role, item in found.inputs.items()} == {
                role: item.path.split("/", 2)[2:] for role, item in step.inputs.items()
            }


def recipe_and_inputs(step) -> str:
    return canonical([step.kind_name, recipe_of(step.parameters), {role: item.path for role, item in step.inputs.items()}])
