"""A teacher's log-probabilities over token files: the likeliest tokens at each predicted position, and the rest of the probability.

For each split, files `<split>-<number>.safetensors` with consecutive rows, as many as stay below a size. Tensors: `ids` int32
[positions, k], the likeliest first; `logps` float16 [positions, k], their log-probabilities (nats); `rest` float16 [positions], the
logarithm of the probability of all other tokens together. Positions are those of the supervised tokens, without the first of a row.

Log-probabilities, not logits: they give the same distribution, and float16 is finest near 0, where the likely tokens are; logits of 20
are rounded to 1/64.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from stages.tokens.files import Array, Tokens, memory_map

SHARD_BYTES = 256 * 2**20
"""Limit on the bytes of a file, unless a single row needs more."""


class TopLogps(NamedTuple):
    """The likeliest tokens at several positions."""

    ids: Array
    """int32 [positions, k]."""
    logps: Array
    """float16 [positions, k]."""
    rest: Array
    """float16 [positions]."""


def bytes_per_position(top_k: int) -> int:
    """Bytes that one position takes."""
    return 6 * top_k + 2


def shards(tokens: Tokens, top_k: int, limit: int = SHARD_BYTES) -> list[range]:
    """The rows of each file."""
    found: list[range] = []
    size = 0
    for row, count in enumerate(tokens.predicted_lengths.tolist()):
        size += count * bytes_per_position(top_k)
        if not found or size > limit:
            found.append(range(row, row + 1))
            size = count * bytes_per_position(top_k)
        else:
            found[-1] = range(found[-1].start, row + 1)
    return found


def shard_name(split: str, number: int) -> str:
    """The name of file NUMBER of a split."""
    return f"{split}-{number:05}.safetensors"


class TopLogpFiles:
    """The files of one split, memory-mapped."""

    def __init__(self, folder: Path, split: str, tokens: Tokens) -> None:
        names = sorted(folder.glob(f"{split}-*.safetensors"))
        self._files = [TopLogps(**memory_map(path)) for path in names]
        counts = tokens.predicted_lengths
        self._starts = np.concatenate([[0], np.cumsum(counts)])
        self._firsts = np.concatenate([[0], np.cumsum([len(file.rest) for file in self._files], dtype=np.int64)])
        assert self._firsts[-1] == self._starts[-1], "the digest of the tokens was compared before"

    def of_row(self, row: int) -> TopLogps:
        """Views of what ROW has."""
        start, stop = int(self._starts[row]), int(self._starts[row + 1])
        number = max(0, int(np.searchsorted(self._firsts, start, side="right")) - 1)
        # A row without supervised tokens may stand behind the last position.
        number = min(number, len(self._files) - 1)
        first = int(self._firsts[number])
        return TopLogps(*(values[start - first : stop - first] for values in self._files[number]))
