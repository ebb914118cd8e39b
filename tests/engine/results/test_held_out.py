"""What the metrics of a training say of held-out pairs, and that figures compare whatever beta is."""

from types import SimpleNamespace

import pytest

from engine.results.table import _learned
from stages.train.objectives.dpo import Dpo
from stages.train.objectives.orpo import Orpo
from stages.train.objectives.supervised import Supervised
from tests.support.memory_store import MemoryStore

STEP = SimpleNamespace(metrics="metrics/train-one.json")
MEASURED = {"a": {"accuracy": 0.75, "chosen_reward": 0.5, "rejected_reward": -1.0}}


def learned(objective, metrics):
    return _learned(STEP, MemoryStore(files={STEP.metrics: metrics}), objective)  # type: ignore[arg-type]


@pytest.mark.parametrize("beta", [0.1, 2.0])
def test_a_log_ratio_is_a_reward_without_its_beta(beta):
    rewards = {"a": {**MEASURED["a"], "chosen_reward": 3.0 * beta, "rejected_reward": -4.0 * beta}}
    found = learned(Dpo(beta=beta), {"validation": rewards})["a"]
    assert (found["chosen_log_ratio"], found["rejected_log_ratio"]) == (pytest.approx(3.0), pytest.approx(-4.0))
    assert found["accuracy"] == 0.75


@pytest.mark.parametrize("metrics", [{}, {"validation": {}}, {"validation": 3}, {"validation": {"a": 3}}])
def test_a_training_that_measured_nothing_has_nothing_to_show(metrics):
    for objective in (Dpo(), Orpo(), Supervised()):
        assert learned(objective, metrics) == {}


def test_without_a_reference_there_is_no_log_ratio():
    assert learned(Orpo(), {"validation": MEASURED}) == MEASURED
    assert learned(Dpo(), {"validation": {"a": {"accuracy": 0.5}}}) == {"a": {"accuracy": 0.5}}
