"""Global batches hold every position once; processes and micro-batches divide them without loss, in equal numbers."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.train import GlobalBatch
from stages.train.division import Share, global_batches, micro_batches

LENGTHS = st.lists(st.integers(1, 30), min_size=1, max_size=60).map(lambda lengths: np.array(lengths, np.int64))
BATCHES = st.builds(GlobalBatch, rows=st.integers(1, 20)) | st.builds(GlobalBatch, tokens=st.integers(1, 80))


@given(LENGTHS, BATCHES)
def test_every_position_is_in_one_global_batch(lengths, batch):
    batches = global_batches(lengths, batch)
    assert [position for positions in batches for position in positions] == list(range(len(lengths)))
    assert all(batches)


@given(LENGTHS, st.integers(1, 80))
def test_a_global_batch_of_tokens_holds_as_many_rows_as_fit(lengths, tokens):
    batches = global_batches(lengths, GlobalBatch(tokens=tokens))
    sums = [int(lengths[batch.start : batch.stop].sum()) for batch in batches]
    assert all(held <= tokens or len(batch) == 1 for held, batch in zip(sums, batches, strict=True))
    following = [int(lengths[batch.stop]) for batch in batches[:-1]]
    assert all(held + after > tokens for held, after in zip(sums, following, strict=False)), "one more would have fitted"


def test_a_global_batch_of_rows_is_as_large_as_it_says_but_for_the_last():
    assert [len(batch) for batch in global_batches(np.ones(22, np.int64), GlobalBatch(rows=6))] == [6, 6, 6, 4]


@given(st.integers(0, 50), st.integers(1, 40), st.integers(1, 5), st.none() | st.integers(1, 45))
def test_processes_divide_a_global_batch_without_loss(start, size, count, micro_rows):
    batch = range(start, start + size)
    parts = [micro_batches(batch, Share(count, index), micro_rows) for index in range(count)]
    assert sorted(position for part in parts for micro in part for position in micro) == list(batch)
    assert len({len(part) for part in parts}) == 1, "each takes part in the others' communication"
    assert all(len(micro) <= (micro_rows or size) for part in parts for micro in part)
    assert max(map(len, parts[0])) - min(len(Share(count, index).of(batch)) for index in range(count)) <= size


@pytest.mark.parametrize("count", [1, 2, 3])
def test_shares_differ_by_one_row_at_most(count):
    sizes = [len(Share(count, index).of(range(10))) for index in range(count)]
    assert sum(sizes) == 10 and max(sizes) - min(sizes) <= 1
