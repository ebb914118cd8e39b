"""Which experiment is best, how sure that is, and the same in sentences."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.core.errors import UserError
from engine.results.ranking import Standing, headline, standings
from engine.results.table import Result, chosen_metric, comparison_table, score_table, value_rows

TASKS = ("a", "b")


def result(name: str, tasks: Sequence[str] = TASKS, comparisons: tuple = (), metric: str = "exact_match", **values: tuple) -> Result:
    """An experiment with a value, low and high for each task."""
    scores = {task: {metric: value, "rows": 10} for task, (value, _, _) in values.items()}
    around = {task: {metric: {"value": value, "low": low, "high": high}} for task, (value, low, high) in values.items()}
    statistics = {"confidence": 0.95, "correction": "holm"} if comparisons else {}
    return Result(name, tuple(tasks), "lora", None, scores, around, comparisons, True, statistics=statistics)


def compared(task: str, other: str, real: bool, p: float = 0.02) -> dict:
    values = {"value": 0.5, "other_value": 0.6, "difference": -0.1, "low": -0.2, "high": -0.01, "p": p, "p_corrected": min(1.0, 40 * p)}
    return {"task": task, "metric": "exact_match", "other": other, "real": real, "trained_on": True, **values}


def test_overlapping_intervals_leave_open_which_is_better():
    found = [result("one", a=(0.9, 0.8, 1.0)), result("two", a=(0.85, 0.75, 0.95)), result("three", a=(0.5, 0.4, 0.6))]
    assert standings(found, "exact_match", "a") == {"one": Standing.BEST, "two": Standing.UNCLEAR, "three": Standing.WORSE}


def test_a_paired_comparison_decides_before_intervals_do():
    best = result("one", a=(0.9, 0.8, 1.0))
    for real, expected in ((True, Standing.WORSE), (False, Standing.UNCLEAR)):
        for overlapping in ((0.85, 0.75, 0.95), (0.5, 0.4, 0.6)):
            other = result("two", comparisons=(compared("a", "one", real),), a=overlapping)
            assert standings([best, other], "exact_match", "a")["two"] is expected


def test_experiments_that_come_to_the_same_value_are_not_called_best():
    found = [result("one", a=(0.0, 0.0, 0.3), b=(0.5, 0.4, 0.6)), result("two", a=(0.0, 0.0, 0.3), b=(0.5, 0.4, 0.6))]
    assert headline(found, "exact_match") == ["No difference on each of the 2 tasks: one and two (exact_match 0.00 to 0.50)."]
    found[1] = result("two", a=(0.0, 0.0, 0.3), b=(0.9, 0.8, 1.0))
    assert headline(found, "exact_match")[0].startswith("Best on each of the 2 tasks: two")


def test_of_perplexity_the_lowest_is_best_and_of_length_none():
    found = [result("one", metric="perplexity", a=(9.0, 8.0, 10.0)), result("two", metric="perplexity", a=(3.0, 2.0, 4.0))]
    assert standings(found, "perplexity", "a") == {"one": Standing.WORSE, "two": Standing.BEST}
    assert [row[0] for row in score_table(found, "perplexity", sort="a")[1]] == ["two", "one"]
    assert standings([result("one", metric="length", a=(9.0, 8.0, 10.0))] * 2, "length", "a") == {}


def test_a_value_of_two_models_has_a_table_of_comparisons_and_no_ranking():
    won = {**compared("a", "base", True), "metric": "win_rate"}
    found = [result("one", comparisons=(won,), a=(0.9, 0.8, 1.0)), result("two", a=(0.5, 0.4, 0.6))]
    assert chosen_metric(found, "win_rate") == "win_rate" and headline(found, "win_rate") == []
    assert [row[:4] for row in comparison_table(found, "win_rate")[1]] == [["one", "a", "yes", "base"]]
    with pytest.raises(UserError, match="no experiment has the metric 'win_rat'"):
        chosen_metric(found, "win_rat")
    several = [replace(one, scores={"a": {"rouge1": 0.5, "rouge2": 0.25, "rougeL": 0.5}}) for one in found]
    with pytest.raises(UserError, match="no experiment has the metric 'rouge'") as caught:
        chosen_metric(several, "rouge")
    assert caught.value.problems[0].hint == "its values: rouge1, rouge2, rougeL"


def test_an_interval_without_zero_beside_a_large_p_is_explained():
    columns, rows, legend = comparison_table([result("one", comparisons=(compared("a", "base", False),), a=(0.5, 0.4, 0.6))], "exact_match")
    row = dict(zip(columns, rows[0], strict=True))
    assert (row["interval"], row["p"], row["p (Holm)"], row["significant"]) == ("[-0.20, -0.01]", "0.020", "0.800", "no")
    assert "p (Holm): corrected for all comparisons of an experiment by this metric" in legend and "p (Holm) < 0.05" in legend


def test_the_headline_names_the_best_and_what_single_tasks_do_elsewhere():
    found = [
        result("person", ("a",), a=(0.9, 0.8, 1.0), b=(0.0, 0.0, 0.1)),
        result("both", a=(0.95, 0.9, 1.0), b=(0.8, 0.7, 0.9)),
    ]
    assert headline(found, "exact_match") == [
        "Best on each of the 2 tasks: both (exact_match 0.80 to 0.95).",
        "Experiments trained on one task reach at best 0.00 on any other (person on b).",
    ]
    assert headline(found[:1], "exact_match") == []
    split = [found[0], result("both", a=(0.5, 0.4, 0.6), b=(0.8, 0.7, 0.9))]
    assert headline(split, "exact_match")[:2] == [
        "Best on a: person (exact_match 0.90 [0.80, 1.00]).",
        "Best on b: both (exact_match 0.80 [0.70, 0.90]).",
    ]


VALUES = st.tuples(st.floats(0, 1), st.floats(0, 0.2)).map(lambda one: (one[0], one[0] - one[1], one[0] + one[1]))


@given(st.lists(st.dictionaries(st.sampled_from(TASKS), VALUES), min_size=1, max_size=5), st.sampled_from(["exact_match", "perplexity"]))
def test_every_ranked_task_has_a_best_and_tables_lose_no_value(values: list[dict], metric: str):
    found = [result(f"e{n}", metric=metric, **one) for n, one in enumerate(values)]
    for task in TASKS:
        ranks = standings(found, metric, task)
        measured = [one.experiment for one in found if task in one.scores]
        assert set(ranks) == (set(measured) if len(measured) > 1 else set())
        assert not ranks or Standing.BEST in ranks.values()
    columns, rows = score_table(found, metric, intervals=True)
    assert sum("[" in cell for row in rows for cell in row) == sum(map(len, values))
    assert len(value_rows(found, None)[1]) == sum(map(len, values)) and headline(found, metric) is not None
    assert all(len(row) == len(columns) for row in rows)


def test_a_winner_on_every_task_names_those_that_are_not_clearly_worse():
    found = [result("one", a=(0.9, 0.8, 1.0), b=(0.9, 0.8, 1.0)), result("two", a=(0.85, 0.7, 0.95), b=(0.8, 0.7, 0.9))]
    assert headline(found, "exact_match") == ["Best on each of the 2 tasks: one (exact_match 0.90 [0.80, 1.00]); not clearly worse: two."]


def test_values_without_intervals_or_of_different_splits_are_not_ranked():
    found = [result("one", a=(0.9, 0.8, 1.0)), result("two", a=(0.5, 0.4, 0.6))]
    bare = [replace(one, intervals={}, current=False) for one in found]
    assert headline(bare, "exact_match") == [
        "Not ranked: there are no intervals here; engine build restores them, with --pull from DVC's remote.",
        "Out of date, or not restored here: one and two.",
    ]
    assert headline([found[0], replace(found[1], split="validation")], "exact_match") == [
        "Not ranked: values of different splits are not comparable."
    ]
