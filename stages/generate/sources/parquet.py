"""Rows from local Parquet files, a batch of rows in memory at a time."""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from engine.errors import Location, UserError
from stages.common.plain import plain
from stages.generate.selection import Located
from stages.generate.sources.files import Files, opened

_BATCH_ROWS = 1024


class Parquet(Files):
    """Local Parquet files; dates become text, as ISO 8601 writes them."""

    kind: Literal["parquet"] = "parquet"
    environment = ("pyarrow",)

    def read_file(self, path: Path) -> Iterator[Located]:
        """Each row with its number; raises UserError where the file is no Parquet or holds values that JSON has not."""
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile

        number = 0
        try:
            for batch in ParquetFile(opened(path)).iter_batches(_BATCH_ROWS):
                for row in batch.to_pylist():
                    number += 1
                    where = Location(f"{path}, row {number}")
                    yield where, {name: plain(value, name, where) for name, value in row.items()}
        except ArrowException as error:
            raise UserError(f"this is no Parquet file that can be read: {error}", Location(str(path))) from None
