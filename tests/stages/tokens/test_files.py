"""Token files: what is written row by row is read back as views, and the bytes are those of safetensors itself."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from engine.core.errors import UserError
from stages.tokens.files import Tokens, TokenWriter, memory_map

row = st.lists(st.tuples(st.integers(0, 2**31 - 1), st.integers(0, 1)), min_size=1, max_size=20)


def write(path, rows):
    with TokenWriter(path) as writer:
        for pairs in rows:
            ids, supervised = zip(*pairs, strict=True)
            writer.write(np.array(ids, np.int32), np.array(supervised, np.uint8))


@given(st.lists(row, max_size=8))
def test_rows_come_back(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("tokens") / "train.safetensors"
    write(path, rows)
    tokens = Tokens.open(path)
    assert len(tokens) == len(rows)
    assert [list(zip(*map(np.ndarray.tolist, tokens.row(i)), strict=True)) for i in range(len(rows))] == rows
    assert tokens.lengths.tolist() == [len(pairs) for pairs in rows]
    assert tokens.supervised_lengths.tolist() == [sum(bit for _, bit in pairs) for pairs in rows]


def test_many_rows_are_summed_in_little_memory():
    lengths = np.random.default_rng(0).integers(1, 60, 50_000)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    supervised = np.random.default_rng(1).integers(0, 2, offsets[-1], dtype=np.uint8)
    tokens = Tokens(np.zeros(offsets[-1], np.int32), supervised, offsets)
    tracemalloc.start()
    found = tokens.supervised_lengths
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    running = np.concatenate([[0], np.cumsum(supervised, dtype=np.int64)])
    assert found.tolist() == (running[offsets[1:]] - running[offsets[:-1]]).tolist()
    assert peak < len(supervised), "at least one sum for each token was held"


def test_it_is_a_safetensors_file_with_the_documented_types(tmp_path):
    path = tmp_path / "train.safetensors"
    write(path, [[(5, 0), (6, 1)], [(7, 1)]])
    found = load_file(path)
    assert {name: (tensor.dtype.name, tensor.tolist()) for name, tensor in found.items()} == {
        "input_ids": ("int32", [5, 6, 7]),
        "supervised": ("uint8", [0, 1, 1]),
        "offsets": ("int64", [0, 2, 3]),
    }
    assert [p.name for p in tmp_path.iterdir()] == ["train.safetensors"]


@pytest.mark.parametrize("rows", [[], [[(5, 0), (6, 1)], [(7, 1)]]])
def test_the_bytes_are_those_of_the_library(tmp_path, rows):
    write(tmp_path / "ours", rows)
    save_file(load_file(tmp_path / "ours"), tmp_path / "theirs")
    assert (tmp_path / "ours").read_bytes() == (tmp_path / "theirs").read_bytes()


def test_batches_of_any_size_make_equal_bytes(tmp_path):
    lengths = np.random.default_rng(0).integers(1, 9, 100)
    ids = np.arange(lengths.sum(), dtype=np.int32)
    for size in (1, 7, 100):
        with TokenWriter(tmp_path / str(size)) as writer:
            for start in range(0, 100, size):
                span = slice(lengths[:start].sum(), lengths[: start + size].sum())
                writer.write_rows(
                    ids[span], (ids[span] % 2).astype(np.uint8), lengths[start : start + size], lengths[start : start + size] - 1
                )
    assert (tmp_path / "1").read_bytes() == (tmp_path / "7").read_bytes() == (tmp_path / "100").read_bytes()


def test_writing_takes_no_memory_for_the_tokens(tmp_path):
    tracemalloc.start()
    with TokenWriter(tmp_path / "t") as writer:
        for _ in range(200):
            writer.write_rows(np.zeros(50_000, np.int32), np.zeros(50_000, np.uint8), np.full(500, 100))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (tmp_path / "t").stat().st_size > 50_000_000 > 10 * peak


def test_equal_rows_make_equal_bytes(tmp_path):
    for name in ("a", "b"):
        write(tmp_path / name, [[(number, number % 2)] * (number + 1) for number in range(50)])
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_rows_are_read_only_views_of_the_file(tmp_path):
    path = tmp_path / "train.safetensors"
    write(path, [[(5, 0), (6, 1)], [(7, 1)]])
    tokens = Tokens.open(path)
    ids, supervised = tokens.row(1)
    assert np.shares_memory(ids, tokens.input_ids) and not ids.flags.owndata and not ids.flags.writeable
    assert (ids.dtype, supervised.dtype) == (np.int32, np.uint8) and type(ids) is np.ndarray


@pytest.mark.parametrize("index", [-1, 2])
def test_there_are_no_rows_beyond_the_ends(tmp_path, index):
    write(tmp_path / "t", [[(5, 0)], [(7, 1)]])
    with pytest.raises(IndexError):
        Tokens.open(tmp_path / "t").row(index)


def test_a_failed_writing_leaves_nothing(tmp_path):
    with pytest.raises(RuntimeError, match="stop"), TokenWriter(tmp_path / "t") as writer:
        writer.write(np.array([1]), np.array([1], np.uint8))
        raise RuntimeError("stop")
    assert list(tmp_path.iterdir()) == []


def test_an_id_that_does_not_fit_is_refused(tmp_path):
    with pytest.raises(TypeError, match="Cannot cast"), TokenWriter(tmp_path / "t") as writer:
        writer.write(np.array([1.5]), np.array([1], np.uint8))


def test_any_safetensors_file_can_be_mapped(tmp_path):
    tensors = {"a": np.arange(6, dtype=np.int16).reshape(2, 3), "b": np.zeros((0,), np.int64), "c": np.array([7], np.uint8)}
    save_file(tensors, tmp_path / "x", metadata={"format": "np"})
    for name, tensor in memory_map(tmp_path / "x").items():
        assert tensor.dtype == tensors[name].dtype and np.array_equal(tensor, tensors[name])


def test_batches_of_rows_give_the_bytes_of_single_rows(tmp_path):
    rows = [[(number, number % 2)] * (number + 1) for number in range(9)]
    write(tmp_path / "single", rows)
    with TokenWriter(tmp_path / "batched") as writer:
        for batch in (rows[:4], [], rows[4:5], rows[5:]):
            flat = np.array([pair for row in batch for pair in row], np.int32).reshape(-1, 2)
            writer.write_rows(flat[:, 0], flat[:, 1].astype(np.uint8), np.array([len(row) for row in batch], np.int64))
    assert (tmp_path / "batched").read_bytes() == (tmp_path / "single").read_bytes()


def test_rows_of_encoder_decoder_models_say_where_their_labels_begin(tmp_path):
    with TokenWriter(tmp_path / "t") as writer:
        writer.write(np.array([5, 6, 7]), np.array([0, 0, 1], np.uint8), source_length=2)
        writer.write_rows(np.array([8, 9, 9]), np.array([1, 0, 1], np.uint8), np.array([1, 2]), np.array([0, 1], np.int32))
    tokens = Tokens.open(tmp_path / "t")
    assert tokens.source_lengths.dtype == np.int32 and tokens.source_lengths.tolist() == [2, 0, 1]
    assert [tokens.row(number)[0].tolist() for number in range(3)] == [[5, 6, 7], [8], [9, 9]]


def test_rows_of_causal_models_have_no_source(tmp_path):
    write(tmp_path / "t", [[(5, 0), (6, 1)]])
    assert Tokens.open(tmp_path / "t").source_lengths is None


def test_rows_with_and_without_a_source_do_not_mix(tmp_path):
    with pytest.raises(AssertionError), TokenWriter(tmp_path / "t") as writer:
        writer.write(np.array([5, 6]), np.array([0, 1], np.uint8), source_length=1)
        writer.write(np.array([5, 6]), np.array([0, 1], np.uint8))


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"supervised": np.ones(2, np.uint8)}, "has 3 tokens, 2 labels, and rows with 3 tokens"),
        ({"offsets": np.array([0, 2])}, "has 3 tokens, 3 labels, and rows with 2 tokens"),
        ({"offsets": np.zeros(0, np.int64)}, "rows with 0 tokens"),
        ({"source_lengths": np.ones(2, np.int32)}, "has 1 rows, but source lengths for 2"),
    ],
)
def test_labels_of_another_length_are_the_users_matter(tmp_path, changed, said):
    whole = {"input_ids": np.arange(3, dtype=np.int32), "supervised": np.ones(3, np.uint8), "offsets": np.array([0, 3])}
    save_file(whole | changed, tmp_path / "t")
    with pytest.raises(UserError, match=said) as caught:
        Tokens.open(tmp_path / "t")
    assert caught.value.problems[0].where.file == str(tmp_path / "t")


def test_a_file_that_is_cut_is_the_users_matter(tmp_path):
    write(tmp_path / "t", [[(5, 0), (6, 1)]])
    whole = (tmp_path / "t").read_bytes()
    for length in (0, 4, 30, len(whole) - 3):
        (tmp_path / "t").write_bytes(whole[:length])
        with pytest.raises(UserError, match="token file"):
            Tokens.open(tmp_path / "t")
