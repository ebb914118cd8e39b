"""Rows of local Parquet files, one batch of rows in memory at a time."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from engine.core.errors import Location, UserError
from stages.generate.selection import Files, Located, opened
from stages.rows.plain_values import plain

_BATCH_ROWS = 1024


class Parquet(Files):
    """Local Parquet files; dates become ISO 8601 text."""

    kind: Literal["parquet"] = "parquet"
    environment = ("pyarrow",)
    uncompressed = ()

    def read_file(self, path: Path) -> Iterator[Located]:
        """Each row with its number; raises UserError if the file is not Parquet or contains values that JSON cannot represent."""
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile

        number = 0
        try:
            file = ParquetFile(opened(path))
            _refuse_equal_names(file.schema_arrow, "", path)
            for batch in file.iter_batches(_BATCH_ROWS):
                for row in batch.to_pylist():
                    number += 1
                    where = Location(f"{path}, row {number}")
                    yield where, {name: plain(value, name, where) for name, value in row.items()}
        except ArrowException as error:
            raise UserError(f"cannot read this Parquet file: {error}", Location(str(path))) from None


def _refuse_equal_names(fields: Any, above: str, path: Path) -> None:
    """Raise UserError if two of FIELDS, an Arrow schema or struct, have the same name at any depth: only one would be kept."""
    from pyarrow import types

    names = [field.name for field in fields]
    for field in fields:
        name = f"{above}.{field.name}" if above else field.name
        if names.count(field.name) > 1:
            raise UserError(f"this file has two columns named '{name}'", Location(str(path)), "give each column a unique name")
        inside = field.type
        while types.is_list(inside) or types.is_large_list(inside) or types.is_fixed_size_list(inside) or types.is_map(inside):
            inside = inside.item_type if types.is_map(inside) else inside.value_type
        if types.is_struct(inside):
            _refuse_equal_names(inside.fields, name, path)
