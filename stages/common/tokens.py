"""Token files: rows of token ids with a mask of the supervised ones, flat in one safetensors file.

Tensors: `input_ids` int32 [tokens], `supervised` uint8 [tokens], `offsets` int64 [rows + 1]; row i lies at offsets[i]:offsets[i + 1].
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

    def __init__(self, input_ids: Array, supervised: Array, offsets: Array) -> None:
        assert len(input_ids) == len(supervised) == offsets[-1]
        self.input_ids, self.supervised, self.offsets = input_ids, supervised, offsets

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
    """Writes a token file row by row, in memory that does not grow with the tokens; the file is there when the context ends."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offsets = array("q", [0])
        # Nameless files beside the result: they need no name, no cleaning up after a crash, and no other disk.
        self._input_ids: IO[bytes] = tempfile.TemporaryFile(dir=path.parent)  # noqa: SIM115
        self._supervised: IO[bytes] = tempfile.TemporaryFile(dir=path.parent)  # noqa: SIM115

    def write(self, input_ids: Array, supervised: Array) -> None:
        """Add one row: ids and mask, of the same length, at least one token."""
        assert len(input_ids) == len(supervised) > 0
        self._input_ids.write(input_ids.astype("<i4", casting="same_kind").tobytes())
        self._supervised.write(supervised.astype(np.uint8, casting="same_kind").tobytes())
        self._offsets.append(self._offsets[-1] + len(input_ids))

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
        save_file(tensors, self._path)


def _spooled(file: IO[bytes], dtype: str, count: int) -> Array:
    file.flush()
    # An empty file cannot be mapped.
    return np.memmap(file, dtype=dtype, mode="r", shape=(count,)) if count else np.zeros(0, dtype)
