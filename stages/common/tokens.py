"""Token files: rows of token ids with a mask of the supervised ones, flat in one safetensors file.

Tensors: `input_ids` int32 [tokens], `supervised` uint8 [tokens], `offsets` int64 [rows + 1]; row i lies at offsets[i]:offsets[i + 1].
For encoder-decoder models there is `source_lengths` int32 [rows] too: the first tokens of a row are the encoder's input, the others the
decoder's labels.
"""

import json
import tempfile
from array import array
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import numpy as np
from safetensors.numpy import save_file

Array = np.ndarray[Any, np.dtype[Any]]

_DTYPES = {"I64": "<i8", "I32": "<i4", "I16": "<i2", "U8": "u1"}


def memory_map(path: Path) -> dict[str, Array]:
    """The tensors of a safetensors file, read-only and not copied: pages are read when they are touched."""
    # safe_open of safetensors 0.8 copies each tensor for numpy, hence the few lines by hand;
    # the layout: https://github.com/huggingface/safetensors#format
    file = np.asarray(np.memmap(path, dtype=np.uint8, mode="r"))
    start = 8 + int(file[:8].view("<u8")[0])
    header = json.loads(file[8:start].tobytes())
    header.pop("__metadata__", None)
    return {name: _tensor(file[start:], entry) for name, entry in header.items()}


def _tensor(data: Array, entry: dict[str, Any]) -> Array:
    begin, end = entry["data_offsets"]
    return data[begin:end].view(_DTYPES[entry["dtype"]]).reshape(entry["shape"])


class Tokens:
    """The rows of a token file, memory-mapped."""

    def __init__(self, input_ids: Array, supervised: Array, offsets: Array, source_lengths: Array | None = None) -> None:
        assert len(input_ids) == len(supervised) == offsets[-1]
        assert source_lengths is None or len(source_lengths) == len(offsets) - 1
        self.input_ids, self.supervised, self.offsets = input_ids, supervised, offsets
        self.source_lengths = source_lengths
        """Tokens of each row that are the encoder's input, int32 [rows]; None where the rows are for a causal model."""

    @classmethod
    def open(cls, path: Path) -> Self:
        """The rows of the token file at PATH."""
        return cls(**memory_map(path))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def row(self, index: int) -> tuple[Array, Array]:
        """Token ids (int32) and supervised mask (uint8) of a row, both views of the file."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        span = slice(int(self.offsets[index]), int(self.offsets[index + 1]))
        return self.input_ids[span], self.supervised[span]

    def source_and_labels(self, index: int) -> tuple[Array, Array]:
        """The encoder's input and the decoder's labels of a row (both int32), views of the file; for encoder-decoder models."""
        assert self.source_lengths is not None, "these rows are for a causal model"
        input_ids, _ = self.row(index)
        source = int(self.source_lengths[index])
        return input_ids[:source], input_ids[source:]

    @cached_property
    def lengths(self) -> Array:
        """Tokens of each row, int64 [rows]."""
        return np.diff(self.offsets)

    @cached_property
    def supervised_lengths(self) -> Array:
        """Supervised tokens of each row, int64 [rows]; no row is empty, which reduceat relies on."""
        if not len(self):
            return np.zeros(0, np.int64)
        return np.add.reduceat(self.supervised, self.offsets[:-1], dtype=np.int64)


class TokenWriter:
    """Writes a token file in batches of rows, in memory that does not grow with the tokens; the file is there when the context ends."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offsets = array("q", [0])
        self._source_lengths = array("i")
        # Nameless files beside the result: they need no name, no cleaning up after a crash, and no other disk.
        self._input_ids: IO[bytes] = tempfile.TemporaryFile(dir=path.parent)  # noqa: SIM115
        self._supervised: IO[bytes] = tempfile.TemporaryFile(dir=path.parent)  # noqa: SIM115

    def write(self, input_ids: Array, supervised: Array, source_length: int | None = None) -> None:
        """Add one row: ids and mask, of the same length, at least one token."""
        sources = None if source_length is None else np.array([source_length], np.int32)
        self.write_rows(input_ids, supervised, np.array([len(input_ids)]), sources)

    def write_rows(self, input_ids: Array, supervised: Array, lengths: Array, source_lengths: Array | None = None) -> None:
        """Add rows, flat one after another; LENGTHS has the tokens of each, none of them 0; either all rows have a source, or none."""
        if not len(lengths):
            return
        assert len(input_ids) == len(supervised) == lengths.sum() and lengths.min() > 0
        self._input_ids.write(input_ids.astype("<i4", casting="same_kind").tobytes())
        self._supervised.write(supervised.astype(np.uint8, casting="same_kind").tobytes())
        self._add_sources(lengths, source_lengths)
        self._offsets.frombytes((self._offsets[-1] + np.cumsum(lengths, dtype=np.int64)).tobytes())

    def _add_sources(self, lengths: Array, source_lengths: Array | None) -> None:
        rows_before = len(self._offsets) - 1
        assert len(self._source_lengths) == (rows_before if source_lengths is not None else 0)
        if source_lengths is not None:
            assert len(source_lengths) == len(lengths) and (source_lengths >= 0).all() and (source_lengths < lengths).all()
            self._source_lengths.frombytes(source_lengths.astype("<i4", casting="same_kind").tobytes())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, error_type: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with self._input_ids, self._supervised:
            if error is None:
                self._finish()

    def _finish(self) -> None:
        count = self._offsets[-1]
        tensors = {
            "input_ids": _spooled(self._input_ids, "<i4", count),
            "supervised": _spooled(self._supervised, "u1", count),
            "offsets": np.frombuffer(self._offsets, np.int64),
        }
        if self._source_lengths:
            tensors["source_lengths"] = np.frombuffer(self._source_lengths, np.int32)
        save_file(tensors, self._path)


def _spooled(file: IO[bytes], dtype: str, count: int) -> Array:
    file.flush()
    # An empty file cannot be mapped.
    return np.memmap(file, dtype=dtype, mode="r", shape=(count,)) if count else np.zeros(0, dtype)
