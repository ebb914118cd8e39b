"""Rows come in the mixture's order, and every one of them ends up in exactly one micro-batch."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from engine.core.errors import UserError
from stages.tokens.files import Tokens
from stages.train.loop.batches import IGNORED
from stages.train.loop.data import Row, Rows, global_batches, refuse_misfits, refuse_other_pairs, refuse_unsupervised
from tests.stages.train.tiny import SIZES, collate, write_order, write_tokens


@pytest.fixture
def tokens(tmp_path):
    return {task: write_tokens(tmp_path / task / "train.safetensors", rows, seed) for seed, (task, rows) in enumerate(SIZES.items())}


@pytest.fixture
def rows(tmp_path, tokens):
    return Rows.open(write_order(tmp_path / "order", SIZES), tokens)


def ragged(lengths, bins=None):
    """Rows of the given lengths whose ids count on, all of them supervised."""
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    total = int(offsets[-1])
    tokens = Tokens(np.arange(total, dtype=np.int32), np.ones(total, np.uint8), offsets)
    count = len(lengths)
    return Rows([tokens], np.zeros(count, np.int16), np.arange(count), bins)


lengths = st.lists(st.integers(1, 9), min_size=1, max_size=40)


@given(lengths, st.integers(1, 20), st.none() | st.integers(1, 50))
def test_global_batches_hold_every_position_once(given_lengths, batch_rows, batch_tokens):
    batches = global_batches(ragged(given_lengths), batch_rows, batch_tokens)
    assert [position for batch in batches for position in batch] == list(range(len(given_lengths)))
    sums = [sum(given_lengths[batch.start : batch.stop]) for batch in batches]
    if batch_tokens is None:
        assert all(len(batch) == batch_rows for batch in batches[:-1])
    else:
        assert all(total <= batch_tokens or len(batch) == 1 for total, batch in zip(sums, batches, strict=True))
        for batch, total in zip(batches[:-1], sums, strict=False):
            assert total + given_lengths[batch.stop] > batch_tokens, "one more row would not have fitted"


def test_global_batches_of_packed_rows_are_whole_bins():
    rows = ragged([3, 4, 5, 1, 2], np.array([0, 2, 3, 5]))
    assert global_batches(rows, 2) == [range(3), range(3, 5)]
    assert global_batches(rows, 1, batch_tokens=12) == [range(3), range(3, 5)]
    assert global_batches(rows, 1, batch_tokens=5) == [range(2), range(2, 3), range(3, 5)]


def test_rows_come_in_the_order_of_the_mixture(tmp_path, tokens, rows):
    from stages.tokens.files import memory_map

    order = memory_map(tmp_path / "order" / "order.safetensors")
    files = [Tokens.open(tokens[task]) for task in SIZES]
    assert len(rows) == sum(SIZES.values())
    for index, (task, row) in enumerate(zip(order["task"], order["row"], strict=True)):
        assert np.array_equal(rows[index][0], files[task].row(row)[0])


def test_counts_of_tokens_are_those_of_the_rows(rows):
    assert rows.lengths().tolist() == [len(rows[index][0]) for index in range(len(rows))]
    assert rows.supervised().tolist() == [int(rows[index][1][1:].sum()) for index in range(len(rows))]
    assert rows.largest_id() == max(rows[index][0].max() for index in range(len(rows)))


def test_a_first_token_counts_for_nothing_as_nothing_predicts_it():
    file = Tokens(np.arange(5, dtype=np.int32), np.ones(5, np.uint8), np.array([0, 3, 5]))
    assert Rows.all_of(file).supervised().tolist() == [1, 2]
    assert (collate([Row(*file.row(0))])["labels"] != IGNORED).sum() == 2


def test_all_rows_of_a_file_come_short_ones_first(tokens):
    lengths = Rows.all_of(Tokens.open(tokens["copy"])).lengths().tolist()
    assert lengths == sorted(lengths) and len(lengths) == SIZES["copy"]


@given(st.lists(st.lists(st.tuples(st.integers(0, 99), st.booleans()), min_size=1, max_size=7), min_size=1, max_size=4))
def test_collated_rows_are_padded_on_the_right_and_keep_their_tokens(lists):
    given_rows = [Row(np.array([i for i, _ in row], np.int32), np.array([s for _, s in row], np.uint8)) for row in lists]
    batch = collate(given_rows)
    assert {values.dtype for values in batch.values()} == {torch.int64}
    for number, (input_ids, supervised, _) in enumerate(given_rows):
        length = len(input_ids)
        assert batch["input_ids"][number, :length].tolist() == input_ids.tolist()
        assert batch["attention_mask"][number].tolist() == [1] * length + [0] * (max(map(len, lists)) - length)
        learnt = [i if s else IGNORED for i, s in zip(input_ids[1:], supervised[1:], strict=True)]
        assert batch["labels"][number].tolist() == [IGNORED, *learnt, *[IGNORED] * (max(map(len, lists)) - length)]


def test_tokens_of_another_tokenizer_are_refused(rows):
    refuse_misfits(rows, 250, None, "training")
    with pytest.raises(UserError, match="has 100 tokens"):
        refuse_misfits(rows, 100, None, "training")


def test_rows_longer_than_the_model_are_refused(rows):
    longest = int(rows.lengths().max())
    refuse_misfits(rows, 250, longest, "training")
    with pytest.raises(UserError, match=f"has {longest} tokens"):
        refuse_misfits(rows, 250, longest - 1, "training")


def pairs(lengths, sources):
    """Rows of the given lengths, of which SOURCES are the input of an encoder."""
    tokens = ragged(lengths)._tokens[0]
    tokens.source_lengths = np.array(sources, np.int32)
    return Rows.all_of(tokens)


def test_inputs_and_labels_of_pairs_are_each_as_long_as_the_model():
    rows = pairs([9, 7], [4, 6])
    assert (rows.longest(), ragged([9, 7]).longest()) == (6, 9)
    refuse_misfits(rows, 250, 6, "training")
    with pytest.raises(UserError, match="has 6 tokens"):
        refuse_misfits(rows, 250, 5, "training")


def test_rows_of_the_other_sort_of_model_are_refused(rows):
    refuse_other_pairs(rows, False)
    refuse_other_pairs(pairs([9], [4]), True)
    for wrong, is_pair in ((rows, True), (pairs([9], [4]), False)):
        with pytest.raises(UserError, match="its rows are tokenized for") as caught:
            refuse_other_pairs(wrong, is_pair)
        assert caught.value.problems[0].hint == f"set tokenization.encoder_decoder = {str(is_pair).lower()}"


def test_a_step_without_supervised_tokens_is_refused(tmp_path, rows):
    refuse_unsupervised(rows, global_batches(rows, 1))
    barren = Rows.all_of(Tokens.open(write_tokens(tmp_path / "barren.safetensors", 4, 0, supervised=False)))
    with pytest.raises(UserError, match="step 1 has no supervised token"):
        refuse_unsupervised(barren, global_batches(barren, 2))


def test_an_empty_mixture_is_refused(tmp_path):
    with pytest.raises(UserError, match="no rows"):
        refuse_unsupervised(Rows.all_of(Tokens.open(write_tokens(tmp_path / "none.safetensors", 0, 0))), [])
