"""A sweep of two points is built by the road that every spec takes, and the best of them is written and needs no training of its own."""

import json

import pytest

from tests.end_to_end.conftest import Place, spec

pytestmark = pytest.mark.slow

TRAININGS = ("train-rank-r_1", "train-rank-r_4")


@pytest.mark.long
def test_a_sweep_is_built_and_its_best_point_is_picked(place: Place):
    place.write("specs/rank.toml", spec("rank", "a", more="\n[sweep.grid]\ntraining.method.r = [1, 4]\n"))
    done = place.run("engine", "build", *TRAININGS)
    # What does not depend on the rank is there already, or is one step for both points.
    assert {line.split()[1] for line in done.stderr.splitlines() if line.startswith("run ")} == {"mix-rank", *TRAININGS}

    losses = {name: json.loads((place.root / f"metrics/{name}.json").read_text())["validation_loss"]["a"] for name in TRAININGS}
    best = min(losses, key=lambda name: losses[name])
    picked = json.loads(place.run("engine", "pick", "rank", "--json").stdout)
    assert (f"train-{picked['best']}", picked["written"], picked["metric"]) == (best, "specs/rank-best.toml", "validation_loss")
    assert [point["value"] for point in picked["points"]] == sorted(losses.values())

    planned = place.plan("rank-best")
    assert planned[best] == "keep"
    new = {f"predict-{picked['best']}", "evaluate-rank-best", "score-rank-best"}
    assert {name for name, action in planned.items() if action == "run"} == {"resolve", *new}
