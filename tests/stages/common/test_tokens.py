"""Token files: what is written row by row is read back as views, and the bytes are those of safetensors itself."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from stages.common.tokens import Tokens, TokenWriter, memory_map

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
