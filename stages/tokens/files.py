"""Token files: rows of token ids with a supervision mask, concatenated in one safetensors file.

Tensors: `input_ids` int32 [tokens], `supervised` uint8 [tokens], `offsets` int64 [rows + 1]; row i is at offsets[i]:offsets[i + 1].
For encoder-decoder models also `source_lengths` int32 [rows]: the first tokens of a row are the encoder's input, the others the
decoder's labels. If an unrolled conversation counts once per epoch, `conversations` int32 [rows] numbers the conversations. In a file of
pairs, `chosen` uint8 [rows] is 1 for chosen and 0 for rejected answers: row 2i is the chosen answer of pair i, row 2i + 1 the rejected one.
In a file of answers that were judged alone, `desirable` uint8 [rows] is 1 for desirable and 0 for undesirable answers.
"""

import json
import shutil
import tempfile
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import numpy as np

from engine.core.errors import Location, UserError

Array = np.ndarray[Any, np.dtype[Any]]

_COLUMNS = {
    "offsets": "I64",
    "conversations": "I32",
    "input_ids": "I32",
    "source_lengths": "I32",
    "chosen": "U8",
    "desirable": "U8",
    "supervised": "U8",
}
_OPTIONAL = ("source_lengths", "conversations", "chosen", "desirable")
_COPIED_BYTES = 1 << 20
_SUMMED_ROWS = 4096

_DTYPES = {"I64": "<i8", "I32": "<i4", "I16": "<i2", "U8": "u1", "F16": "<f2"}


def memory_map(path: Path) -> dict[str, Array]:
    """The tensors of a safetensors file, memory-mapped read-only."""
    # safe_open of safetensors 0.8 copies each tensor for numpy, so the header is parsed here;
    # format: https://github.com/huggingface/safetensors#format
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

    def __init__(
        self,
        input_ids: Array,
        supervised: Array,
        offsets: Array,
        source_lengths: Array | None = None,
        conversations: Array | None = None,
        chosen: Array | None = None,
        desirable: Array | None = None,
    ) -> None:
        assert len(input_ids) == len(supervised) == offsets[-1]
        assert source_lengths is None or len(source_lengths) == len(offsets) - 1
        self.input_ids, self.supervised, self.offsets = input_ids, supervised, offsets
        assert conversations is None or len(conversations) == len(offsets) - 1
        self.conversations = conversations
        """Conversation of each row, int32 [rows], rows of one conversation adjacent; None if each row counts separately."""
        assert chosen is None or (len(chosen) == len(offsets) - 1 and chosen[::2].all() and not chosen[1::2].any())
        self.chosen = chosen
        """1 for chosen and 0 for rejected answers, alternating, uint8 [rows]; None if rows are not pairs."""
        assert desirable is None or len(desirable) == len(offsets) - 1
        self.desirable = desirable
        """1 for desirable and 0 for undesirable answers, uint8 [rows]; None if answers were not judged alone."""
        self.source_lengths = source_lengths
        """Tokens of the encoder's input of each row, int32 [rows]; None for a causal model."""

    @classmethod
    def open(cls, path: Path) -> Self:
        """The rows of the token file at PATH; raises UserError if it is damaged, such as ids and labels of different lengths."""
        hint = "it was not written by tokenize; remove it, and build again"
        try:
            found = memory_map(path)
        except (ValueError, KeyError, IndexError) as error:
            raise UserError(f"this token file is damaged: {error}", Location(str(path)), hint) from None
        rows, sources = found["offsets"], found.get("source_lengths")
        ids, labels = len(found["input_ids"]), len(found["supervised"])
        if not (len(rows) and ids == labels == rows[-1]):
            what = f"this token file has {ids} tokens, {labels} labels, and rows with {rows[-1] if len(rows) else 0} tokens in total"
            raise UserError(what, Location(str(path)), hint)
        if sources is not None and len(sources) != len(rows) - 1:
            what = f"this token file has {len(rows) - 1} rows, but source lengths for {len(sources)}"
            raise UserError(what, Location(str(path)), hint)
        return cls(**found)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def units(self) -> int:
        """Rows per epoch: one per conversation, all, or the number of pairs."""
        if self.are_pairs:
            return len(self) // 2
        return len(self) if self.conversations is None else int(self.conversations[-1]) + 1 if len(self) else 0

    @property
    def are_pairs(self) -> bool:
        """Whether rows are the answers of pairs."""
        return self.chosen is not None

    def row(self, index: int) -> tuple[Array, Array]:
        """Token ids (int32 [tokens]) and supervision mask (uint8 [tokens]) of a row, both views of the file."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        span = slice(int(self.offsets[index]), int(self.offsets[index + 1]))
        return self.input_ids[span], self.supervised[span]

    @cached_property
    def lengths(self) -> Array:
        """Tokens of each row, int64 [rows]."""
        return np.diff(self.offsets)

    @cached_property
    def predicted_lengths(self) -> Array:
        """Supervised tokens of each row without its first token, which no model predicts, int64 [rows]."""
        return self.supervised_lengths - self.supervised[self.offsets[:-1]]

    @cached_property
    def supervised_lengths(self) -> Array:
        """Supervised tokens of each row, int64 [rows]; rows are never empty, as reduceat requires."""
        found = np.empty(len(self), np.int64)
        # reduceat casts its whole input to the dtype of the sums, so blocks bound the memory.
        for start in range(0, len(self), _SUMMED_ROWS):
            offsets = self.offsets[start : start + _SUMMED_ROWS + 1]
            block = self.supervised[offsets[0] : offsets[-1]]
            found[start : start + _SUMMED_ROWS] = np.add.reduceat(block, offsets[:-1] - offsets[0], dtype=np.int64)
        return found


class TokenWriter:
    """Writes a token file in batches of rows, in constant memory; the file exists when the context exits."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._rows = self._tokens = self._sources = self._numbered = self._marked = self._judged = 0
        # Unnamed files next to the result: no cleanup after a crash, and the same disk. In the order of safetensors (wider dtypes
        # first, then names), whose readers require aligned tensors.
        self._files: dict[str, IO[bytes]] = {name: tempfile.TemporaryFile(dir=path.parent) for name in _COLUMNS}  # noqa: SIM115
        self._files["offsets"].write(bytes(8))

    def write(self, input_ids: Array, supervised: Array, source_length: int | None = None) -> None:
        """Add one row: ids [tokens] and mask [tokens], at least one token."""
        sources = None if source_length is None else np.array([source_length], np.int32)
        self.write_rows(input_ids, supervised, np.array([len(input_ids)]), sources)

    def write_rows(
        self,
        input_ids: Array,
        supervised: Array,
        lengths: Array,
        source_lengths: Array | None = None,
        conversations: Array | None = None,
        chosen: Array | None = None,
        desirable: Array | None = None,
    ) -> None:
        """Add rows, concatenated; LENGTHS [rows] are the tokens of each, none of them 0.

        Sources must be given for all rows or none, and so must CONVERSATIONS, CHOSEN and DESIRABLE.
        """
        if not len(lengths):
            return
        assert len(input_ids) == len(supervised) == lengths.sum() and lengths.min() > 0
        self._add("input_ids", input_ids)
        self._add("supervised", supervised)
        self._add("offsets", self._tokens + np.cumsum(lengths, dtype=np.int64))
        self._add_sources(lengths, source_lengths)
        assert self._numbered == (self._rows if conversations is not None else 0)
        if conversations is not None:
            assert len(conversations) == len(lengths)
            self._add("conversations", conversations)
            self._numbered += len(lengths)
        assert self._marked == (self._rows if chosen is not None else 0)
        if chosen is not None:
            assert len(chosen) == len(lengths)
            self._add("chosen", chosen)
            self._marked += len(lengths)
        assert self._judged == (self._rows if desirable is not None else 0)
        if desirable is not None:
            assert len(desirable) == len(lengths)
            self._add("desirable", desirable)
            self._judged += len(lengths)
        self._rows += len(lengths)
        self._tokens += len(input_ids)

    def _add(self, name: str, values: Array) -> None:
        self._files[name].write(values.astype(_DTYPES[_COLUMNS[name]], casting="same_kind").tobytes())

    def _add_sources(self, lengths: Array, source_lengths: Array | None) -> None:
        assert self._sources == (self._rows if source_lengths is not None else 0)
        if source_lengths is not None:
            assert len(source_lengths) == len(lengths) and (source_lengths >= 0).all() and (source_lengths < lengths).all()
            self._add("source_lengths", source_lengths)
            self._sources += len(source_lengths)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, error_type: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with ExitStack() as files:
            for file in self._files.values():
                files.enter_context(file)
            if error is None:
                self._finish()

    def _finish(self) -> None:
        """Concatenate the columns into one file; the library's writer would need them in memory."""
        counts = {"offsets": self._rows + 1, "input_ids": self._tokens, "supervised": self._tokens}
        counts |= {"source_lengths": self._sources, "conversations": self._numbered, "chosen": self._marked, "desirable": self._judged}
        used = [name for name in _COLUMNS if name not in _OPTIONAL or counts[name]]
        entries, end = {}, 0
        for name in used:
            start, end = end, end + counts[name] * np.dtype(_DTYPES[_COLUMNS[name]]).itemsize
            entries[name] = {"dtype": _COLUMNS[name], "shape": [counts[name]], "data_offsets": [start, end]}
        header = json.dumps(entries, separators=(",", ":")).encode()
        header += b" " * (-len(header) % 8)
        with self._path.open("wb") as file:
            file.write(len(header).to_bytes(8, "little") + header)
            for name in used:
                self._files[name].seek(0)
                shutil.copyfileobj(self._files[name], file, _COPIED_BYTES)
