"""Which point of a sweep is the best, what is written of it, and why nothing is where that cannot be told."""

from dataclasses import replace
from pathlib import Path

import pytest

from engine.core.errors import UserError
from engine.core.workspace import Workspace
from engine.plan.project import Project
from engine.results.picking import Question, chosen, pick, spec_text
from engine.results.sweeps import Measured, PointResult, Sweep, lines, sweep_table
from tests.engine.results.test_sweeps import PART

GRID = "sweep.grid.training.method.r = [1, 4]\nsweep.grid.experiment.seed = [0, 1]\n"


@pytest.fixture
def project(tmp_path: Path):
    (tmp_path / "specs/parts").mkdir(parents=True)
    (tmp_path / "specs/parts/common.toml").write_text(PART)

    def make(text: str = GRID) -> Project:
        (tmp_path / "specs/x.toml").write_text(f'extends = ["parts/common.toml"]\nexperiment.name = "x"\n{text}')
        return Project(Workspace.at(tmp_path))

    return make


def point(
    name: str, losses: dict[str, float], more: dict[str, dict[str, float]] | None = None, current: bool = True, **values
) -> PointResult:
    metrics = {"validation_loss": losses} | (more or {})
    shown = {metric: {task: Measured(value) for task, value in of.items()} for metric, of in metrics.items()}
    fields = {"r": "training.method.r", "seed": "experiment.seed", "rate": "training.learning_rate", "beta": "training.objective.beta"}
    return PointResult(name, {fields[key]: value for key, value in values.items()}, shown, current, current, 100 * values.get("r", 1))


def sweep_of(*points: PointResult) -> Sweep:
    return Sweep("x", "specs/x.toml", tuple(points[0].values), points)


def best(project: Project, sweep: Sweep, *question: str | None) -> str:
    return chosen(project.specs[0], sweep, Question(*question)).best.point.name


def refusal(project: Project, sweep: Sweep, *question: str | None) -> str:
    with pytest.raises(UserError) as caught:
        chosen(project.specs[0], sweep, Question(*question))
    (problem,) = caught.value.problems
    return f"{problem.what} | {problem.hint}"


def test_the_lowest_validation_loss_wins_unless_told_otherwise(project):
    sweep = sweep_of(point("p", {"a": 2.0}, r=1), point("q", {"a": 1.0}, r=4), point("s", {"a": 3.0}, r=8))
    assert best(project(), sweep) == "q"
    assert best(project(), sweep, None, None, "max") == "s"


def test_several_tasks_count_by_their_mean_or_one_alone(project):
    sweep = sweep_of(point("p", {"a": 1.0, "b": 4.0}, r=1), point("q", {"a": 2.0, "b": 2.0}, r=4))
    assert best(project(), sweep) == "q"
    assert best(project(), sweep, None, "a") == "p"
    assert refusal(project(), sweep, None, "c").startswith("validation_loss was not measured on task 'c'")


def test_points_that_differ_by_seed_alone_count_by_their_mean(project):
    """The single best value belongs to a rank that was lucky once; the best seed of the better rank is written."""
    values = {(1, 0): 0.9, (1, 1): 3.0, (4, 0): 1.6, (4, 1): 1.4}
    sweep = sweep_of(*(point(f"r_{r}-{seed}", {"a": value}, r=r, seed=seed) for (r, seed), value in values.items()))
    choice = chosen(project().specs[0], sweep, Question())
    assert [candidate.point.name for candidate in choice.candidates] == ["r_4-1", "r_4-0", "r_1-0", "r_1-1"]
    assert choice.best.mean == pytest.approx(1.5) and choice.table()[0][-1] == "mean over seeds"
    assert "seed" in choice.table()[0], "as `engine results` calls the field"


def test_ties_go_to_the_fewest_parameters_then_to_the_first(project):
    sweep = sweep_of(point("big", {"a": 1.0}, r=8), point("small", {"a": 1.0 + 1e-9}, r=1))
    assert best(project(), sweep) == "small"
    assert best(project(), sweep_of(point("p", {"a": 1.0}, rate=2.0), point("q", {"a": 1.0}, rate=1.0))) == "p"


def test_how_many_choices_tie_is_known(project):
    losses = {"p": 1.0, "q": 1.0, "s": 2.0}
    sweep = sweep_of(*(point(name, {"a": loss}, rate=rate) for rate, (name, loss) in enumerate(losses.items())))
    assert chosen(project().specs[0], sweep, Question()).equals == 2
    seeds = sweep_of(point("p", {"a": 1.0}, seed=0), point("q", {"a": 1.0}, seed=1))
    seeds = Sweep(seeds.name, seeds.spec, ("experiment.seed",), seeds.points)
    assert chosen(project().specs[0], seeds, Question()).equals == 1


def test_metrics_of_test_rows_are_refused_and_those_of_validation_rows_are_not(project):
    sweep = sweep_of(point("p", {"a": 1.0}, {"rouge1": {"a": 0.1}}, r=1), point("q", {"a": 2.0}, {"rouge1": {"a": 0.2}}, r=4))
    assert refusal(project(), sweep, "rouge1").startswith("'rouge1' was measured on test rows")
    on_validation = project(GRID + 'evaluation.split = "validation"\n')
    assert best(on_validation, sweep, "rouge1") == "q" == best(on_validation, sweep)
    assert refusal(on_validation, sweep, "rouge3").endswith("| did you mean 'rouge1'?")


def test_a_metric_of_which_neither_is_better_needs_a_direction(project):
    sweep = sweep_of(point("p", {}, {"length": {"a": 9.0}}, r=1), point("q", {}, {"length": {"a": 3.0}}, r=4))
    on_validation = project(GRID + 'evaluation.split = "validation"\n')
    assert refusal(on_validation, sweep, "length").endswith("| give --max or --min")
    assert best(on_validation, sweep, "length", None, "min") == "q"


def test_points_that_are_not_built_or_stale_name_the_command(project):
    sweep = sweep_of(point("p", {"a": 1.0}, r=1), point("q", {"a": 1.0}, current=False, r=4))
    assert refusal(project(), sweep) == "1 of 2 points have no current validation_loss on a: q | run: engine build specs/x.toml"
    assert refusal(project(), sweep, "rouge3") == "no point of 'x' has the metric 'rouge3' | run: engine build specs/x.toml"
    sweep = sweep_of(PointResult("p", {"experiment.seed": 0}, {}, False, False, None))
    assert refusal(project(), sweep) == "no point of the sweep 'x' is built yet | run: engine build specs/x.toml"
    sweep = sweep_of(PointResult("p", {"experiment.seed": 0}, {"rouge1": {"a": Measured(0.1)}}, True, True, None))
    assert refusal(project(), sweep).startswith("the trainings of 'x' have no validation_loss")


def test_what_is_written_is_the_point_and_is_asked_test_rows(project):
    swept = project(GRID + 'evaluation.split = "validation"\n')
    names = [spec.name for spec in swept.specs]
    sweep = sweep_of(*(point(name, {"a": float(number)}, r=number + 1) for number, name in enumerate(reversed(names))))
    choice = chosen(swept.specs[0], sweep, Question())
    path = swept.root / "specs/x-best.toml"
    spec = next(spec for spec in swept.specs if spec.name == choice.best.point.name)
    path.write_text(spec_text(swept.root, spec, path, choice))
    again = Project(swept.workspace)
    (written,) = again.chosen([path])
    assert written.experiment.training == spec.experiment.training and written.experiment.experiment.seed == 1
    assert (written.name, written.experiment.evaluation.split) == ("x-best", "test")
    assert again.graph["train-x-best"].name == f"train-{spec.name}"
    assert {step.name for step in again.graph} - {step.name for step in swept.graph} == {
        "predict-x-best",
        "evaluate-x-best",
        "score-x-best",
    }


@pytest.mark.parametrize(
    "output, said",
    [("/elsewhere/best.toml", "is outside the workspace"), ("specs/Best one.toml", "Best one.toml is not a valid name for a spec")],
)
def test_a_spec_is_written_only_where_it_can_be_read(project, tmp_path, monkeypatch, output, said):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=said):
        pick(project(), Path("specs/x.toml"), Question(), Path(output), False)


def test_a_file_that_is_there_is_kept(project, tmp_path):
    swept = project()
    assert swept.specs
    kept = tmp_path / "specs/x-best.toml"
    kept.write_text("mine")
    with pytest.raises(UserError, match="already exists"):
        pick(swept, Path("x"), Question(), None, False)
    with pytest.raises(UserError, match="no point of the sweep 'x' is built yet"):
        pick(swept, Path("x"), Question(), None, True)
    assert kept.read_text() == "mine"


def test_a_spec_without_a_sweep_has_nothing_to_pick_from(project):
    with pytest.raises(UserError, match="has no sweep with several points"):
        pick(project(""), Path("specs/x.toml"), Question(), None, False)


def test_the_table_shows_fields_scores_and_intervals():
    first = point("p", {"a": 1.25}, r=1, seed=0)
    second = PointResult("q", {"training.method.r": 4, "experiment.seed": 0}, {"rouge1": {"a": Measured(0.5, 0.25, 0.75)}}, True, False, 1)
    columns, rows = sweep_table(sweep_of(first, second), "rouge1")
    assert columns == ["point", "r", "seed", "rouge1 a", "validation_loss a", "state"]
    assert rows == [["p", "1", "0", "–", "1.2500", "current"], ["q", "4", "0", "0.50 [0.25, 0.75]", "–", "stale"]]


def test_a_plot_has_a_line_for_each_task_and_combination():
    points = [point(f"p{r}{seed}", {"a": r + seed, "b": 1.0}, r=r, seed=seed) for seed in (0, 1) for r in (1, 4)]
    found = {
        line.label: [(value, measured.value) for value, measured in line.points]
        for line in lines(sweep_of(*points), "training.method.r", "validation_loss")
    }
    assert found["a, seed 1"] == [(1, 2), (4, 5)] and len(found) == 4


def scored(name: str, value: float, half: float | None, **values) -> PointResult:
    """A point with one metric whose interval is HALF wide on either side."""
    made = point(name, {}, **values)
    around = (None, None) if half is None else (value - half, value + half)
    return replace(made, metrics={"validation_loss": {"a": Measured(value, *around)}})


@pytest.mark.parametrize(("second", "half", "within"), [(1.05, 0.1, True), (1.14, 0.1, True), (1.15, 0.1, False), (9.0, None, None)])
def test_a_best_point_within_the_noise_of_the_next_is_told_by_the_intervals(project, second, half, within):
    sweep = sweep_of(scored("p", 1.0, half, r=1), scored("q", second, half, r=4), scored("s", 99.0, half, r=8))
    choice = chosen(project().specs[0], sweep, Question())
    assert choice.best.point.name == "p" and choice.margin.following.point.name == "q"
    assert choice.margin.within is within and choice.margin.difference == pytest.approx(second - 1)
    assert choice.as_data()["margin"]["within_noise"] is within


@pytest.mark.parametrize(("spread", "within"), [(0.001, False), (1.0, True)])
def test_seeds_tell_the_noise_where_both_choices_have_several(project, spread, within):
    """The next choice is another rank, never another seed of the best one."""
    values = {(1, 0): 1.0, (1, 1): 1.0 + spread, (4, 0): 1.2, (4, 1): 1.2 + spread}
    sweep = sweep_of(*(point(f"r_{r}-{seed}", {"a": value}, r=r, seed=seed) for (r, seed), value in values.items()))
    margin = chosen(project().specs[0], sweep, Question()).margin
    assert margin.following.point.values["training.method.r"] == 4 and margin.within is within and margin.source == "the seeds"


def test_a_sweep_of_seeds_alone_has_no_next_choice(project):
    sweep = sweep_of(*(point(f"s-{seed}", {"a": 1.0 + seed}, seed=seed) for seed in range(3)))
    assert chosen(project().specs[0], sweep, Question()).margin is None


def test_losses_of_different_objectives_are_not_ranked_but_what_compares(project):
    """A high beta makes the loss of the same rewards small."""
    betas = {
        "low": ({"a": 0.6}, {"validation_accuracy": {"a": 0.9}}, 0.1),
        "high": ({"a": 0.1}, {"validation_accuracy": {"a": 0.5}}, 5.0),
    }
    sweep = sweep_of(*(point(name, losses, more, beta=beta) for name, (losses, more, beta) in betas.items()))
    assert best(project(), sweep) == "low"
    assert chosen(project().specs[0], sweep, Question()).metric == "validation_accuracy"
    told = refusal(project(), sweep, "validation_loss")
    assert "losses of different objectives do not compare" in told and told.endswith("pick by validation_accuracy")
    columns, _ = sweep_table(sweep, "validation_loss")
    assert columns == ["point", "beta", "validation_loss a", "validation_accuracy a", "state"]
    # One of them has no such value: a supervised training beside those on pairs.
    mixed = sweep_of(sweep.points[0], point("other", {"a": 1.0}, {"validation_cross_entropy": {"a": 1.0}}, beta=None))
    assert 'set evaluation.split = "validation"' in refusal(project(), mixed)
    entropies = (("p", 2.0), ("q", 1.5))
    taught = sweep_of(*(point(name, {"a": 1.0}, {"validation_cross_entropy": {"a": value}}, beta=value) for name, value in entropies))
    assert best(project(), taught) == "q", "the lower cross entropy is better"


def test_a_sweep_over_the_learning_rate_of_pairs_is_still_ranked_by_its_loss(project):
    rates = (("p", 0.2, 0.5), ("q", 0.3, 0.9))
    sweep = sweep_of(*(point(name, {"a": loss}, {"validation_accuracy": {"a": right}}, rate=loss) for name, loss, right in rates))
    assert best(project(), sweep) == "p" and best(project(), sweep, "validation_accuracy") == "q"
