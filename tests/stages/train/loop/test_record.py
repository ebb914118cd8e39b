"""The curve is thinned evenly, and the final loss is the mean of the last tenth."""

import itertools

import pytest

from stages.train.loop.record import POINTS, Point, final_loss, write_curve


def curve(steps):
    return [Point(step, float(step), 1e-3, 0.5) for step in range(1, steps + 1)]


@pytest.mark.parametrize("steps", [1, 2, 199, 200, 201, 1000])
def test_curve_keeps_first_and_last_step_and_at_most_so_many(tmp_path, steps):
    write_curve(curve(steps), tmp_path / "plot.csv")
    lines = (tmp_path / "plot.csv").read_text().splitlines()
    kept = [int(line.split(",")[0]) for line in lines[1:]]
    assert lines[0] == "step,loss,learning_rate,grad_norm"
    assert kept[0] == 1 and kept[-1] == steps and len(kept) == len(set(kept)) == min(steps, POINTS)
    gaps = {after - before for before, after in itertools.pairwise(kept)}
    assert not gaps or max(gaps) - min(gaps) <= 1


def test_final_loss_is_the_mean_of_the_last_tenth():
    assert final_loss(curve(40)) == (37 + 38 + 39 + 40) / 4
    assert final_loss(curve(3)) == 3
