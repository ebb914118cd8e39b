"""A sweep of two points is built by the road that every spec takes, and the best of them is written and needs no training of its own."""

import json

import pytest

from tests.road.conftest import Place, spec

pytestmark = pytest.mark.slow

TRAININGS = ("train-rank-r_1", "train-rank-r_4")


def test_a_sweep_is_built_and_its_best_point_is_picked(place: Place):
    place.write("specs/rank.toml", spec("rank", "a", more="\n[sweep.grid]\ntraining.method.r = [1, 4]\n"))
    missing = place.run("engine", "pick", "rank", check=False)
    assert missing.returncode == 1 and "run: engine build specs/rank.toml" in missing.stderr
    place.run("engine", "compile")
    assert {name for name, action in place.plan(*TRAININGS).items() if action == "run"} == {"resolve", "mix-rank", *TRAININGS}
    assert place.repro_as_planned(*TRAININGS) == {"resolve", "mix-rank", *TRAININGS}

    losses = {name: json.loads((place.root / f"metrics/{name}.json").read_text())["validation_loss"]["a"] for name in TRAININGS}
    best = min(losses, key=lambda name: losses[name])
    picked = json.loads(place.run("engine", "pick", "rank", "--json").stdout)
    assert (f"train-{picked['best']}", picked["written"], picked["metric"]) == (best, "specs/rank-best.toml", "validation_loss")
    assert [point["value"] for point in picked["points"]] == sorted(losses.values())

    actions = place.plan("rank-best")
    assert actions[best] == "keep" and {name for name, action in actions.items() if action == "run" and "train" in name} == set()
    again = place.run("engine", "pick", "rank", check=False)
    assert again.returncode == 1 and "specs/rank-best.toml is there already" in again.stderr
