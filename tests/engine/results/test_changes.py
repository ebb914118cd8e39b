"""What a build says has changed: adapters and values of experiments that had been evaluated before."""

from engine.results.changes import Recorded, changes


def scores(**tasks: float) -> dict[str, dict[str, float]]:
    return {task: {"exact_match": value, "rouge1": value / 2, "rows": 10} for task, value in tasks.items()}


def test_a_first_build_and_one_that_changed_nothing_say_nothing():
    now = {"one": Recorded("sha256:" + "a" * 64, scores(a=0.5))}
    assert changes({}, now, "exact_match") == [] == changes(now, now, "exact_match")


def test_adapters_and_values_of_the_shown_metric_are_given_and_other_metrics_named():
    before = {"one": Recorded("sha256:" + "a" * 64, scores(a=0.5, b=0.5))}
    now = {"one": Recorded("sha256:" + "b" * 64, scores(a=0.75, b=0.5)), "two": Recorded(None, scores(a=0.1))}
    assert changes(before, now, "exact_match") == [
        "one: adapter aaaaaaaaaaaa → bbbbbbbbbbbb; exact_match on a 0.50 → 0.75; also rouge1",
        "two: evaluated for the first time",
    ]


def test_an_adapter_that_was_not_known_before_as_in_a_clone_has_not_changed():
    now = {"one": Recorded("sha256:" + "a" * 64, scores(a=0.5))}
    assert changes({"one": Recorded(None, scores(a=0.5))}, now, "exact_match") == []


def test_values_that_look_alike_with_two_decimals_have_more_and_a_new_task_has_no_old_value():
    before, now = ({"one": Recorded(None, scores(**tasks))} for tasks in ({"a": 0.5}, {"a": 0.5012, "b": 0.25}))
    assert changes(before, now, "exact_match") == ["one: exact_match on a 0.5000 → 0.5012; exact_match on b – → 0.25; also rouge1"]
