"""Ways to store ragged rows of tokens: time to write, size, time to open and to read rows in random order, memory.

    python benchmarks/storage.py [--quick] [--json] [--rows N]

arrays: this project's token files (flat arrays in one safetensors file, memory-mapped). arrow: an IPC file with list columns,
memory-mapped, as `datasets` has it. parquet: the same columns compressed; it has to be read before rows can be.
"""

import sys

if __name__ == "__main__":
    # Run as a script: this folder itself must not be searched, where a benchmark of tokenize would stand before Python's own module.
    sys.path[0] = __file__.rpartition("/benchmarks/")[0] or "."

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.common import machine, table
from stages.tokens.files import Array, Tokens, TokenWriter

BATCH = 1_024
Batch = tuple[Array, Array, Array]


def batches(rows: int) -> Iterator[Batch]:
    """Random rows of about 150 tokens: ids, mask and lengths, BATCH rows at a time."""
    generator = np.random.default_rng(0)
    for start in range(0, rows, BATCH):
        lengths = generator.lognormal(4.8, 0.6, min(BATCH, rows - start)).astype(np.int64) + 1
        total = int(lengths.sum())
        yield generator.integers(0, 8_000, total, dtype=np.int32), (generator.random(total) < 0.5).astype(np.uint8), lengths


def write_arrays(path: Path, rows: list[Batch]) -> None:
    with TokenWriter(path) as writer:
        for batch in rows:
            writer.write_rows(*batch)


def read_arrays(path: Path, order: Array) -> int:
    tokens = Tokens.open(path)
    return sum(int(ids[0]) + int(mask[-1]) for ids, mask in map(tokens.row, order.tolist()))


def _record(batch: Batch) -> pa.RecordBatch:
    ids, mask, lengths = batch
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    return pa.record_batch([pa.ListArray.from_arrays(offsets, values) for values in (ids, mask)], ["input_ids", "supervised"])


def write_arrow(path: Path, rows: list[Batch]) -> None:
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, _record(rows[0]).schema) as writer:
        for batch in rows:
            writer.write_batch(_record(batch))


def _read_table(found: pa.Table, order: Array) -> int:
    chunks = [column.chunks for column in found.columns]
    ends = np.cumsum([len(chunk) for chunk in chunks[0]])
    total = 0
    for row in order.tolist():
        at = int(np.searchsorted(ends, row, side="right"))
        inside = row - (int(ends[at - 1]) if at else 0)
        ids, mask = (chunk[at][inside].values.to_numpy() for chunk in chunks)
        total += int(ids[0]) + int(mask[-1])
    return total


def read_arrow(path: Path, order: Array) -> int:
    with pa.memory_map(str(path)) as file:
        return _read_table(pa.ipc.open_file(file).read_all(), order)


def write_parquet(path: Path, rows: list[Batch]) -> None:
    with pq.ParquetWriter(path, _record(rows[0]).schema, compression="zstd") as writer:
        for batch in rows:
            writer.write_batch(_record(batch))


def read_parquet(path: Path, order: Array) -> int:
    return _read_table(pq.read_table(path), order)


WAYS: dict[str, tuple[Callable[[Path, list[Batch]], None], Callable[[Path, Array], int]]] = {
    "arrays": (write_arrays, read_arrays),
    "arrow": (write_arrow, read_arrow),
    "parquet": (write_parquet, read_parquet),
}


def measure(rows: int) -> dict[str, Any]:
    """All ways on the same rows; each must read the same numbers."""
    made = list(batches(rows))
    order = np.random.default_rng(1).permutation(rows)
    found, sums = {}, set()
    with tempfile.TemporaryDirectory(prefix="storage-") as folder:
        for name, (write, read) in WAYS.items():
            path = Path(folder) / name
            start = time.perf_counter()
            write(path, made)
            written = time.perf_counter()
            read(path, order[:1])
            opened = time.perf_counter()
            sums.add(read(path, order))
            found[name] = {
                "write_s": round(written - start, 3),
                "first_row_s": round(opened - written, 4),
                "random_rows_per_s": round(rows / (time.perf_counter() - opened)),
                "bytes_per_token": round(path.stat().st_size / sum(len(batch[0]) for batch in made), 2),
            }
    assert len(sums) == 1, "all ways hold the same rows"
    return {"rows": rows, "tokens": sum(len(batch[0]) for batch in made), "ways": found, "machine": machine()}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one JSON value as the last line of stdout")
    parser.add_argument("--quick", action="store_true", help="a thousand rows")
    parser.add_argument("--rows", type=int, default=200_000, metavar="N", help="rows (default: 200000)")
    chosen = parser.parse_args()
    content = measure(1_000 if chosen.quick else chosen.rows)
    columns = ["write_s", "first_row_s", "random_rows_per_s", "bytes_per_token"]
    rows = [[name, *(f"{found[column]:,}" for column in columns)] for name, found in content["ways"].items()]
    print(json.dumps(content) if chosen.json else "\n\n".join([content["machine"], table(["way", *columns], rows)]))


if __name__ == "__main__":
    main()
