"""Sweeps: which points a spec has, how they are named, and how what cannot be meant is refused where it stands."""

from collections.abc import Callable
from pathlib import Path

import pytest

from engine.core.errors import Problem, UserError
from engine.spec.explain import explain_all
from engine.spec.load import load_each, load_specs
from engine.spec.sections import Spec


@pytest.fixture
def points(tmp_path: Path, write: Callable[..., Path], valid: str) -> Callable[[str], tuple[Spec, ...]]:
    """The specs that the small spec with a sweep makes."""
    return lambda sweep: load_specs([write(valid + sweep)], tmp_path)


@pytest.fixture
def refused(tmp_path: Path, write: Callable[..., Path], valid: str) -> Callable[[str], tuple[Problem, ...]]:
    def refused(sweep: str) -> tuple[Problem, ...]:
        with pytest.raises(UserError) as caught:
            load_specs([write(valid + sweep)], tmp_path)
        return caught.value.problems

    return refused


def line_of(problem: Problem) -> tuple[str, str]:
    """The source line, and what the caret is under."""
    where = problem.where
    assert where and where.source and where.column
    return where.source, where.source[where.column - 1 : where.column - 1 + where.length]


def test_every_combination_of_a_grid_is_a_point(points):
    specs = points("[sweep.grid]\ntraining.method.r = [1, 4]\nexperiment.seed = [0, 1]\n")
    assert [spec.name for spec in specs] == ["headline-seed_0-r_1", "headline-seed_0-r_4", "headline-seed_1-r_1", "headline-seed_1-r_4"]
    assert [(spec.experiment.experiment.seed, spec.experiment.training.method.r) for spec in specs] == [(0, 1), (0, 4), (1, 1), (1, 4)]
    assert {spec.stem for spec in specs} == {"headline"} and {spec.path for spec in specs} == {"specs/a.toml"}


def test_a_huge_grid_is_refused_with_its_number_before_it_is_compiled(points, refused):
    lists = "\n".join(f"{name} = {list(range(1, 12))}" for name in ("experiment.seed", "training.method.r", "training.epochs"))
    (problem,) = refused(f"[sweep.grid]\n{lists}\n")
    assert problem.what.startswith("this sweep has 1,331 points (11 of experiment.seed x 11 of training.epochs x 11 of training.method.r)")
    assert problem.where.line and "sweep.max_points = 1331" in problem.hint
    few = "[sweep]\nmax_points = {}\n[sweep.grid]\nexperiment.seed = [0, 1, 2]\n"
    assert len(points(few.format(3))) == 3
    assert "3 points" in refused(few.format(2))[0].what


def test_the_order_of_fields_says_nothing(points):
    one = points("[sweep.grid]\ntraining.method.r = [1, 4]\nexperiment.seed = [0, 1]\n")
    other = points("[sweep.grid]\nexperiment.seed = [0, 1]\ntraining.method.r = [1, 4]\n")
    assert [spec.name for spec in one] == [spec.name for spec in other]


def test_listed_points_are_multiplied_by_the_grid_alone(points):
    text = (
        '[sweep.grid]\nexperiment.seed = [0, 1]\n[[sweep.points]]\nname = "small"\ntraining.method.r = 1\ntraining.learning_rate = 1e-3\n'
    )
    text += "[[sweep.points]]\ntraining.method.r = 8\ntraining.learning_rate = 2e-5\n"
    names = [spec.name for spec in points(text)]
    assert names == [
        "headline-small-seed_0",
        "headline-small-seed_1",
        "headline-learning_rate_2e-05-r_8-seed_0",
        "headline-learning_rate_2e-05-r_8-seed_1",
    ]


def test_one_value_is_no_choice_and_no_name(points):
    (spec,) = points("[sweep.grid]\ntraining.method.r = [4]\n")
    assert spec.name == "headline" and spec.experiment.training.method.r == 4
    assert spec.point.values == {("training", "method", "r"): 4}


def test_values_of_any_sort_are_named(points):
    grid = {
        "training.method": '["lora", { kind = "lora", r = 2, use_rslora = true }, "full"]',
        "training.betas": "[[0.9, 0.95], [0.9, 0.999]]",
        "tasks.headline.prompts": '[["Write a headline for this long text. {{ text }}"], ["{{ text }}"]]',
        "training.weight_decay": "[0.0, 0.01]",
    }
    found = [points(f"[sweep.grid]\n{field} = {values}\n") for field, values in grid.items()]
    assert [spec.point.labels[0] for spec in found[0]] == ["method_lora", "method_lora_r_2_use_rslora_true", "method_full"]
    assert [spec.point.labels[0] for spec in found[1]] == ["betas_0_9_0_95", "betas_0_9_0_999"]
    assert [spec.point.labels[0] for spec in found[2]] == ["prompts_251f475e", "prompts_text"]
    assert [spec.point.labels[0] for spec in found[3]] == ["weight_decay_0_0", "weight_decay_0_01"]


def test_fields_of_one_last_word_are_told_apart(points):
    names = [spec.name for spec in points("[sweep.grid]\nexperiment.seed = [0, 1]\nmodel.seed = [0, 1]\n")]
    assert names[0] == "headline-experiment_seed_0-model_seed_0" and len(set(names)) == 4


def test_another_kind_leaves_the_keys_of_the_former_behind(points):
    specs = points('[sweep.grid]\ntraining.method.kind = ["lora", "full"]\n')
    assert [spec.name for spec in specs] == ["headline-method_lora", "headline-method_full"]
    assert [spec.experiment.training.method.kind for spec in specs] == ["lora", "full"]


def test_a_spec_that_extends_a_sweep_may_take_it_back(points, write, tmp_path):
    points("[sweep.grid]\ntraining.method.r = [1, 4]\n")
    taken = write('extends = ["a.toml"]\nsweep = false\nexperiment.name = "best"\ntraining.method.r = 4\n', "specs/b.toml")
    more = write('extends = ["a.toml"]\nexperiment.name = "more"\nsweep.grid.experiment.seed = [0, 1]\n', "specs/c.toml")
    assert [spec.name for spec in load_specs([taken], tmp_path)] == ["best"]
    assert len(load_specs([more], tmp_path)) == 4


def test_show_tells_each_value_once(points):
    values = explain_all(points("[sweep.grid]\ntraining.method.r = [1, 4]\n"))
    told = [(value.point, value.value, str(value.where)) for value in values if value.key == "training.method.r"]
    assert told == [("headline-r_1", "1", "specs/a.toml:19:22"), ("headline-r_4", "4", "specs/a.toml:19:25")]
    assert len({(value.key, value.point) for value in values}) == len(values)
    assert [value.point for value in values if value.key == "training.epochs"] == [None]


CASES = {
    "unknown field": ("[sweep.grid]\ntraining.metod.r = [1]", "unknown key 'metod' in training", "metod", "did you mean 'method'?"),
    "unknown section": ("[sweep.grid]\ntrainning.steps = [1]", "unknown section 'trainning'", "trainning", "did you mean 'training'?"),
    "of another kind": (
        "[sweep.grid]\ntraining.method.window = [1]",
        "unknown key 'window' in training.method of kind 'lora'",
        "window",
        None,
    ),
    "wrong value": ("[sweep.grid]\ntraining.method.r = [1, 0]", "training.method.r must be greater than 0, not 0", "0", None),
    "wrong sort": ('[sweep.grid]\nexperiment.seed = [1, "x"]', "experiment.seed must be an integer, not the string 'x'", '"x"', None),
    "wrong reference": (
        '[sweep.grid]\nmixture.tasks = [["headlin"]]',
        "this spec has no task 'headlin'",
        '"headlin"',
        "did you mean 'headline'?",
    ),
    "no array": (
        "[sweep.grid]\nexperiment.seed = 3",
        "sweep.grid.experiment.seed must be an array of values, not the integer 3",
        "3",
        None,
    ),
    "empty": ("[sweep.grid]\nexperiment.seed = []", "sweep.grid.experiment.seed has no values", "[]", None),
    "resource": (
        "[sweep.grid]\nresources.threads = [1, 2]",
        "resources.threads cannot be swept: it affects only how steps run, so all its values give the same result",
        "threads",
        "set it once in the spec, and sweep fields that affect the result",
    ),
    "twice": ("[sweep.grid]\nexperiment.seed = [1, 2, 1]", "duplicate point: seed_1", "1", None),
    "one name for two": (
        '[sweep.grid]\ntraining.method.target_modules = [["a.b"], ["a-b"]]',
        "two points would both be named target_modules_a_b",
        '["a-b"]',
        None,
    ),
    "name": (
        '[sweep.grid]\nexperiment.name = ["a"]',
        "experiment.name cannot be swept: points are named by their values",
        "name",
        None,
    ),
    "bad name": ('[[sweep.points]]\nname = "A b"\nexperiment.seed = 1', "invalid name for a point: the string 'A b'", '"A b"', None),
    "nothing": ("[sweep]", "a sweep needs at least one field or point", "sweep", None),
    "unknown key": ("[sweep]\ngird = {}", "unknown key 'gird' in sweep", "gird", "did you mean 'grid'?"),
    "no table": (
        "[[sweep.points]]\ntraining.method.r = 2\ntraining.steps = -1",
        "training.steps must be greater than 0, not -1",
        "-1",
        None,
    ),
}


@pytest.mark.parametrize("sweep, what, under, hint", CASES.values(), ids=CASES.keys())
def test_what_cannot_be_meant_is_refused_where_it_stands(refused, sweep: str, what: str, under: str, hint: str | None):
    (problem,) = refused(f"{sweep}\n")
    assert problem.what == what
    assert line_of(problem)[1] == under
    assert hint is None or problem.hint == hint


def test_all_wrong_values_are_told_at_once(refused):
    told = refused('[sweep.grid]\ntraining.method.r = [0, 1]\nexperiment.seed = [-1, "x"]\n')
    assert len(told) == 3 and len({str(problem.where) for problem in told}) == 3


def test_what_only_some_points_make_wrong_names_the_point(refused):
    (problem,) = refused("steps = 2\n[[sweep.points]]\ntraining.method.r = 1\n[[sweep.points]]\ntraining.epochs = 2\n")
    assert problem.what == "set epochs or steps, not both" and problem.hint == "at point epochs_2 of the sweep"


def test_points_that_are_equal_are_refused(refused):
    (problem,) = refused("[[sweep.points]]\ntraining.method.r = 8\n[[sweep.points]]\ntraining.method = { kind = 'lora', r = 8 }\n")
    assert problem.what == "points headline-r_8 and headline-method_lora_r_8 are equal: all their values are the same"


def test_names_that_are_too_long_are_refused(refused):
    wanted = "\n".join(f"tasks.headline.{field} = [1, 2]" for field in ("max_new_tokens",))
    wanted += "\ntraining.schedule.warmup_ratio = [0.0123, 0.25]\nevaluation.statistics.confidence = [0.9, 0.95]\n"
    problems = refused(f"[sweep.grid]\n{wanted}")
    assert "at most 60 are allowed" in problems[0].what and "[[sweep.points]]" in (problems[0].hint or "")


def test_another_spec_cannot_have_the_name_of_a_sweep_or_of_a_point(points, write, valid, tmp_path):
    points("[sweep.grid]\ntraining.method.r = [1, 4]\n")
    for name in ("headline", "headline-r_4"):
        other = write(valid.replace('name = "headline"', f'name = "{name}"', 1), "specs/b.toml")
        problems = load_each([tmp_path / "specs/a.toml", other], tmp_path)[1]
        assert [problem.what for problem in problems] == [f"specs/a.toml and specs/b.toml are both named '{name}'"]
