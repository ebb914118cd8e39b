"""Answers that run away in length while a model learns from preferences are told, with both values and what to try."""

from dataclasses import replace
from typing import Any

import pytest

from engine.results.lengths import Learned, run_away

TAUGHT = {"brief": {"accuracy": 0.9, "chosen_tokens": 12.0, "rejected_tokens": 11.0}}
DPO = Learned("own", ("base", "sft"), TAUGHT, "raise training.objective.beta")


def compared(metric: str, value: float, before: float, task: str = "brief", other: str = "sft", real: bool = True) -> dict[str, Any]:
    return {
        **{"task": task, "metric": metric, "other": other, "real": real, "trained_on": True},
        **{"value": value, "other_value": before, "difference": value - before},
    }


def test_answers_far_longer_than_before_and_than_the_chosen_ones_are_told():
    (warned,) = run_away(DPO, [compared("length", 31.0, 10.0), compared("exact_match", 0.2, 0.9)])
    assert warned.what == "own: answers on brief have become 3.1 times as long: 31.0 tokens on average, those of sft 10.0"
    assert warned.hint.startswith("raise training.objective.beta; decrease training.learning_rate")


@pytest.mark.parametrize(
    "found",
    [
        [compared("length", 14.0, 10.0)],
        [compared("length", 31.0, 10.0, real=False)],
        [compared("length", 31.0, 10.0, other="small")],
        [compared("length", 17.0, 10.0)],  # as the chosen answers
        [compared("length", 2.0, 30.0)],  # brief answers are what it was to learn
        [compared("eos_rate", 0.95, 1.0)],
        [compared("rougeL", 31.0, 10.0)],
        [],
    ],
)
def test_small_or_unclear_differences_other_models_and_answers_as_long_as_the_chosen_ones_are_no_warning(found):
    assert run_away(DPO, found) == ()


def test_a_task_that_was_not_trained_on_has_no_chosen_answers_to_excuse_it():
    (warned,) = run_away(DPO, [compared("length", 17.0, 10.0, task="other"), compared("length", 17.0, 10.0)])
    assert "answers on other have become 1.7 times as long" in warned.what


def test_answers_that_a_limit_cuts_off_are_told_by_their_ends():
    cut = [compared("length", 32.0, 30.0), compared("eos_rate", 0.1, 0.94)]
    (warned,) = run_away(DPO, cut)
    assert warned.what == "own: answers on brief end less often: 10% of them within tasks.brief.max_new_tokens, of those of sft 94%"


def test_answers_that_vanish_are_told():
    (warned,) = run_away(DPO, [compared("length", 0.2, 10.0)])
    assert "nearly empty: 0.2 tokens on average, those of sft 10.0" in warned.what and "engine preview" in warned.hint


def test_of_pairs_that_teach_to_write_longer_this_is_the_first_thing_to_mend():
    longer = replace(DPO, held_out={"other": TAUGHT["brief"], "brief": {"chosen_tokens": 20.0, "rejected_tokens": 10.0}})
    (warned,) = run_away(longer, [compared("length", 45.0, 10.0)])
    assert warned.hint.startswith("its chosen answers are 2.0 times as long as the rejected ones: take pairs of like lengths")
