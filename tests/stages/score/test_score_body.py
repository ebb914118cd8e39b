"""score: each headline number is the mean over the tasks that have it, and nothing but numbers."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.process.job import Job
from stages.score import Parameters
from stages.score.body import DIGITS, VALIDATION_LOSS, run

NAMES = ("exact_match", "rougeL", "perplexity")
TASKS = ("a", "b", "c")

numbers = st.floats(0, 1000, allow_nan=False).map(lambda value: round(value, DIGITS))
tables = st.fixed_dictionaries({task: st.dictionaries(st.sampled_from(NAMES), numbers) for task in TASKS})
losses = st.none() | st.dictionaries(st.sampled_from(TASKS), numbers)


def score(folder: Path, tables: dict[str, Any], losses: dict[str, float] | None) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the step returns, and what it writes."""
    evaluation, training, output = folder / "evaluation.json", folder / "training.json", folder / "out"
    output.mkdir(exist_ok=True)
    evaluation.write_text(json.dumps({task: {"rows": 3, **found, "change": {NAMES[0]: -1.0}} for task, found in tables.items()}))
    reads = {"evaluation": evaluation}
    if losses is not None:
        training.write_text(json.dumps({"steps": 2, "train_loss": 9.0, VALIDATION_LOSS: losses}))
        reads["training"] = training
    returned = run(Parameters(metrics=NAMES, tasks=TASKS), Job("score-x", reads, output, None, folder))
    return returned, json.loads((output / "scores.json").read_text())


@given(tables, losses)
def test_each_number_is_the_mean_over_the_tasks_that_have_it(tmp_path_factory: pytest.TempPathFactory, tables, losses):
    returned, written = score(tmp_path_factory.mktemp("score"), tables, losses)
    columns = {name: {task: found[name] for task, found in tables.items() if name in found} for name in NAMES}
    columns[VALIDATION_LOSS] = losses or {}
    assert written == {name: by_task for name, by_task in columns.items() if by_task}
    assert returned.keys() == written.keys(), "a metric that no task has is left out"
    for name, mean in returned.items():
        assert type(mean) is float and min(written[name].values()) <= mean <= max(written[name].values())
        assert mean == pytest.approx(sum(written[name].values()) / len(written[name]), abs=10**-DIGITS)


def test_the_order_is_that_of_the_recipe_with_the_loss_last(tmp_path: Path):
    returned, _ = score(tmp_path, {task: dict.fromkeys(reversed(NAMES), 1.0) for task in TASKS}, {"a": 2.0})
    assert list(returned) == [*NAMES, VALIDATION_LOSS]
