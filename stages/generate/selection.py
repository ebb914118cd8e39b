"""What every source has: which of its rows and columns are used; and what sources that read files have: one, several, or a pattern."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from engine.core.errors import Location, UserError, did_you_mean
from engine.core.part import Need, Part, recipe

Row = dict[str, object]
Located = tuple[Location, Row]


def lacking(column: str, row: Mapping[str, object], otherwise: str | None = None) -> str | None:
    """A hint for ROW, which lacks COLUMN: the nearest column that it has, and what to do if only some rows lack it.

    That is OTHERWISE; by default, a filter of the source.
    """
    near = did_you_mean(column, row)
    # An expression cannot name a column such as `review body`.
    if otherwise is None and column.isidentifier():
        otherwise = f'leave these out: where = "{column} is defined" in the source'
    if otherwise is None:
        return near
    return f"{near}{'' if near.endswith('?') else ';'} if only some rows lack it, {otherwise}" if near else otherwise


class Column(Part):
    """A column computed from others, optionally converted to a type."""

    of: str = recipe(description="A column, or an expression over columns such as `items[0].text`.", min_length=1)
    type: Literal["text", "integer", "number", "boolean", "json"] | None = recipe(
        None, "Target type; `json` parses text as JSON; if unset, no conversion."
    )


class Sample(Part):
    """A sample of the rows, chosen by a hash of their content: adding rows keeps the others in the sample."""

    rows: int | None = recipe(None, "Number of rows.", gt=0)
    share: float | None = recipe(None, "Approximate share of the rows.", gt=0, lt=1)
    seed: int = recipe(0, "Seed for choosing rows.", ge=0, lt=2**63)

    @model_validator(mode="after")
    def _one_size(self) -> Self:
        if (self.rows is None) == (self.share is None):
            raise PydanticCustomError("sample_size", "a sample needs either rows or share", {})
        return self


class Selection(Part):
    """Which rows and columns of a source are used."""

    columns: dict[str, str | Column] = recipe({}, 'New columns, in addition to the existing ones: `title = "headline"` renames.')
    where: str | None = recipe(
        None, "Use only rows for which this expression over the columns is true, such as `year >= 2019`.", min_length=1
    )
    limit: int | None = recipe(None, "Use only the first rows (that match `where`); no more are read.", gt=0)
    sample: Sample | None = recipe(None, "Use only a sample of the rows (of the first `limit`), chosen by content.")

    split_column: ClassVar[str | None] = None
    """The column in which the source itself assigns each row to a split; None if the task's split decides."""
    without_rows: ClassVar[str] = "no rows are left to train on"
    """What is wrong if no row is left."""
    may_be_empty: ClassVar[bool] = False
    """Whether nothing is wrong if there was no row from the start."""

    def group_column(self) -> str | None:
        """The column whose equal values keep rows in one split if the task sets none."""
        return None

    def known_columns(self) -> tuple[str, ...] | None:
        """The exact columns of every row, before `columns` adds to them; None if only known after reading."""
        return None


_PATTERN = frozenset("*?[")

_UNCOMPRESSED_BY = {
    ".gz": "gunzip",
    ".zst": "unzstd",
    ".bz2": "bunzip2",
    ".xz": "unxz",
    ".lzma": "unlzma",
    ".lz4": "unlz4",
    ".zip": "unzip",
    ".7z": "7z x",
    ".tar": "tar -xf",
    ".tgz": "tar -xf",
    ".tbz2": "tar -xf",
    ".txz": "tar -xf",
}
"""Commands that unpack a compressed file, by the suffix of its name."""


class Files(Selection):
    """Rows of files, in the order of the list; files of a pattern are sorted by name."""

    path: Annotated[str, Field(min_length=1)] | tuple[Annotated[str, Field(min_length=1)], ...] = recipe(
        description="A file, relative to the workspace or absolute; a list of files; or a pattern such as `data/*.jsonl`.", min_length=1
    )

    uncompressed: ClassVar[tuple[str, ...]] = (".gz", ".zst")
    """Suffixes of files that are decompressed while they are read."""

    @field_validator("path")
    @classmethod
    def _pattern_in_a_folder(cls, path: str | tuple[str, ...]) -> str | tuple[str, ...]:
        for given in (path,) if isinstance(path, str) else path:
            if _PATTERN & set(PurePosixPath(given).parts[0]):
                raise PydanticCustomError("pattern", "a pattern must start with a folder, such as `data/*.jsonl`", {})
            if why := cls._unreadable(given):
                raise PydanticCustomError("compressed", "{why}; {hint}", {"why": why[0], "hint": why[1]})
        return path

    @classmethod
    def _unreadable(cls, path: str) -> tuple[str, str] | None:
        """Why a file of this name cannot be read, and a hint; None if the name does not rule it out."""
        ends = [end.lower() for end in PurePosixPath(path).suffixes[-2:]]
        if not ends or ends[-1] not in _UNCOMPRESSED_BY or (ends[-1] in cls.uncompressed and ".tar" not in ends):
            return None
        known = " or ".join(cls.uncompressed)
        also = f"; only {known} files are decompressed while they are read" if known else "; Parquet files are compressed internally"
        command = "tar -xf" if ".tar" in ends else _UNCOMPRESSED_BY[ends[-1]]
        return (
            f"{path} is a compressed file, which kind '{cls.model_fields['kind'].default}' does not support",
            f"run: {command} {path}{also}",
        )

    @property
    def paths(self) -> tuple[str, ...]:
        return (self.path,) if isinstance(self.path, str) else self.path

    def needs(self) -> tuple[Need, ...]:
        """The files; for a pattern, the deepest folder without a wildcard."""
        if isinstance(self.path, str):
            return (Need(("path",), path=_above(self.path)),)
        return tuple(Need(("path", index), path=_above(path), name=str(index)) for index, path in enumerate(self.path))

    def unmatched(self, root: Path) -> Iterator[tuple[tuple[str | int, ...], str]]:
        """The patterns that match no file below ROOT although their folder exists, each with its location in this part."""
        for need, path in zip(self.needs(), self.paths, strict=True):
            above = _above(path)
            if above != path and (root / above).is_dir() and not _found(path, root / above):
                yield need.field, path

    def read(self, files: Sequence[Path]) -> Iterator[Located]:
        """Each row of FILES with its location; raises UserError if a file is unreadable or has another format."""
        for given, file in zip(self.paths, files, strict=True):
            for path in _matching(given, file):
                if why := self._unreadable(str(path)):
                    raise UserError(why[0], Location(str(path)), why[1])
                yield from self.read_file(path)

    def read_file(self, path: Path) -> Iterator[Located]:
        """Each row of one file."""
        raise NotImplementedError


def _above(path: str) -> str:
    """PATH itself, or for a pattern the deepest folder without a wildcard."""
    parts = PurePosixPath(path).parts
    plain = next((index for index, part in enumerate(parts) if _PATTERN & set(part)), len(parts))
    return path if plain == len(parts) else str(PurePosixPath(*parts[:plain]))


def _matching(given: str, file: Path) -> list[Path]:
    """FILE, or the files below it that the pattern GIVEN matches."""
    above = _above(given)
    if above == given:
        if file.is_dir():
            raise UserError(f"{file} is a folder, not a file", Location(str(file)), f'give a file, or a pattern such as "{given}/*"')
        return [file]
    if not (found := _found(given, file)):
        raise UserError(f"no file matches {given}", Location(str(file)), "check the pattern")
    return found


def _found(pattern: str, folder: Path) -> list[Path]:
    """The files that PATTERN matches; FOLDER is its deepest folder without a wildcard."""
    below = str(PurePosixPath(pattern).relative_to(_above(pattern)))
    return sorted((path for path in folder.glob(below) if path.is_file()), key=Path.as_posix)


def opened(path: Path) -> Path:
    """PATH, if it can be read; raises UserError if not."""
    try:
        with path.open("rb"):
            return path
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}", hint="check the path, which is relative to the workspace") from None
