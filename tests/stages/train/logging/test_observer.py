"""The pace that a training shows counts what was done here."""

import pytest

from stages.train.logging.observer import Clock


def test_the_pace_counts_from_the_step_that_was_resumed_at_and_no_padding():
    clock = Clock([10] * 8, [4] * 8, 4)
    clock._started -= 2.0
    pace = clock.pace(6)
    assert pace.tokens_per_second == pytest.approx(20 / 2, rel=0.05)
    assert pace.supervised_tokens_per_second == pytest.approx(8 / 2, rel=0.05)
