"""Micro-batches: every row of a global batch is computed exactly once on any number of processes, and no token is lost in its tensors."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stages.tokens.files import Tokens
from stages.train.batching import Packed, Padded, PaddingFree, Unsorted
from stages.train.loop.batches import IGNORED, Batches
from stages.train.loop.data import Rows, global_batches
from stages.train.loop.division import Bound, Share, micro_batches
from stages.train.loop.isolation import PADDED, Arrangement, borders, pairs

LAYOUTS = [Unsorted(), Padded(), PaddingFree()]
FLAT = Arrangement(flat=True)
lengths = st.lists(st.integers(1, 9), min_size=1, max_size=30)
bounds = st.builds(Bound, st.none() | st.integers(1, 12), st.none() | st.integers(1, 40))


def ragged(lengths, bins=None, sources=None):
    """Rows of the given lengths whose ids count on from 1, every second token supervised."""
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    ids = np.arange(1, offsets[-1] + 1, dtype=np.int32)
    tokens = Tokens(ids, (ids % 2).astype(np.uint8), offsets, sources)
    return Rows([tokens], np.zeros(len(lengths), np.int16), np.arange(len(lengths)), bins)


@given(st.sampled_from(LAYOUTS), lengths, st.integers(1, 5), bounds)
def test_the_processes_together_compute_every_row_once(layout, lengths, count, bound):
    shares = [micro_batches(layout, lengths, Share(count, index), bound) for index in range(count)]
    assert sorted(row for share in shares for micro in share for row in micro) == list(range(len(lengths)))
    assert len({len(share) for share in shares}) == 1, "all take part in as many exchanges"
    for micro in (micro for share in shares for micro in share):
        area = sum(lengths[row] for row in micro) if layout.flat else len(micro) * max((lengths[row] for row in micro), default=0)
        assert bound.rows is None or len(micro) <= bound.rows
        assert bound.tokens is None or area <= bound.tokens or len(micro) == 1


def test_grouping_by_length_pads_less_and_leaves_steps_alone():
    lengths = np.random.default_rng(0).integers(1, 200, 256).tolist()

    def padded(layout):
        return sum(len(m) * max(lengths[row] for row in m) for m in micro_batches(layout, lengths, Share(), Bound(8)))

    assert sum(lengths) < padded(Padded()) < 1.1 * sum(lengths) < 1.5 * sum(lengths) < padded(Unsorted())
    assert micro_batches(Padded(), lengths, Share(), Bound()) == [list(range(256))], "one micro-batch is the mixture's own order"


def bins_of(draw_sizes, count):
    ends = np.unique(np.minimum(np.cumsum(draw_sizes), count))
    return np.concatenate([[0], ends[ends < count], [count]]).astype(np.int64)


@given(lengths, st.lists(st.integers(1, 4), max_size=30), st.integers(1, 3), st.integers(1, 4), st.booleans())
def test_bins_stay_whole_and_the_union_over_processes_is_everything(lengths, sizes, count, batch_rows, one_line):
    bins = bins_of(sizes, len(lengths))
    rows = ragged(lengths, bins)
    batches = Batches(rows, Packed(), Bound(2), Arrangement(flat=True, one_line=one_line))
    of_bin = np.searchsorted(bins, np.arange(len(lengths)), side="right")
    seen = []
    for batch in global_batches(rows, batch_rows):
        for index in range(count):
            for positions in batches.micro_batches(batch, Share(count, index)):
                seen += positions
                assert len(set(of_bin[positions])) <= 2, "micro-batches are bounded in bins"
                made = batches.tensors(positions)
                assert len(made.labels) == (1 if one_line else max(1, len(set(of_bin[positions]))))
    assert sorted(seen) == list(range(len(lengths)))


@given(lengths, st.sampled_from([*LAYOUTS, Packed()]))
def test_tensors_hold_each_token_and_each_supervised_one_once(lengths, layout):
    rows = ragged(lengths, np.array([0, len(lengths)]) if isinstance(layout, Packed) else None)
    batch = Batches(rows, layout, Bound(), FLAT if layout.flat else PADDED).tensors(range(len(lengths)))
    ids = batch.inputs["input_ids"]
    assert sorted(ids[ids > 0].tolist()) == list(range(1, sum(lengths) + 1)) and batch.tokens == sum(lengths)
    learnt = batch.labels != IGNORED
    assert int(learnt.sum()) == int(rows.supervised().sum())
    assert (batch.labels[learnt] == ids[learnt]).all() and (batch.offsets[learnt] > 0).all(), "nothing predicts a row's first token"
    for position in range(len(lengths)):
        real = (batch.positions == position) & (ids > 0)
        assert batch.offsets[real].tolist() == list(range(lengths[position]))


def test_an_empty_micro_batch_has_nothing_to_learn_from():
    for layout, arrangement in ((Padded(), PADDED), (PaddingFree(), FLAT), (PaddingFree(), Arrangement(True, True, borders=True))):
        batch = Batches(ragged([3, 4]), layout, Bound(), arrangement).tensors([])
        assert (batch.labels == IGNORED).all() and batch.inputs["input_ids"].numel() == 2


def test_borders_and_pairs_are_those_of_the_rows():
    position_ids = torch.tensor([[0, 1, 2, 0, 0, 1]])
    assert borders(position_ids).tolist() == [0, 3, 4, 6]
    expected = torch.block_diag(torch.ones(3, 3), torch.ones(1, 1), torch.ones(2, 2)).tril().bool()
    assert torch.equal(pairs(position_ids, "bool")[0, 0], expected)
    assert torch.equal(pairs(position_ids, "float")[0, 0] == 0, expected)


def test_an_encoder_decoder_row_is_divided_and_its_labels_follow_the_start():
    rows = ragged([5, 3], sources=np.array([3, 1], np.int32))
    batch = Batches(rows, Padded(), Bound(), decoder_start=99).tensors([0, 1])
    assert batch.inputs["input_ids"].tolist() == [[1, 2, 3], [6, 0, 0]]
    assert batch.inputs["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
    assert batch.inputs["decoder_input_ids"].tolist() == [[99, 4, 5], [99, 7, 8]]
    assert batch.labels.tolist() == [[IGNORED, IGNORED, 5], [IGNORED, 7, IGNORED]]


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.kind)
def test_micro_batches_are_the_same_every_time(layout):
    lengths = np.random.default_rng(1).integers(1, 30, 50).tolist()
    assert micro_batches(layout, lengths, Share(2, 1), Bound(4)) == micro_batches(layout, list(lengths), Share(2, 1), Bound(4))
