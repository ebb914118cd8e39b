"""JSON lines, read with located errors and written byte-deterministically."""

import codecs
import gzip
import json
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from engine.core.errors import Location, UserError
from stages.rows import strict_json
from stages.rows.strict_json import type_name

_HINT = "each line must be one JSON object"
_SHOWN = 200
BOM = "\ufeff"
_BOM_HINT = "files with byte order marks were concatenated; remove the marks, for example with: sed -i 's/\\xEF\\xBB\\xBF//g' FILE"
_PIECE = 1 << 17


def read_objects(path: Path) -> Iterator[tuple[Location, dict[str, object]]]:
    """Each object of PATH with its location; blank lines are skipped; raises UserError at the first line that is not a JSON object.

    `.gz` and `.zst` files are decompressed while they are read.
    """
    with opened(path) as file:
        # A binary file is split at \n only; str.splitlines would also split at U+2028, which is valid inside a JSON string.
        for number, raw in enumerate(file, 1):
            if raw.strip():
                where = Location(str(path), number)
                yield where, _parse(raw, where)


def read_document(path: Path) -> object:
    """The JSON value in PATH, compressed or not; raises UserError if it is not valid JSON."""
    with opened(path) as file:
        raw = b"".join(file)
    text = _decode(raw, Location(str(path), 1))
    try:
        return strict_json.parse(text)
    except json.JSONDecodeError as error:
        line = text.split("\n")[error.lineno - 1]
        if text[error.pos : error.pos + 1] == BOM:
            raise UserError("byte order mark (BOM) in the middle of the file", Location(str(path), error.lineno), _BOM_HINT) from None
        hint = 'if each line is a JSON object, use kind = "jsonl"' if error.msg == "Extra data" else None
        where = Location(str(path), error.lineno, error.colno, _excerpt(line))
        raise UserError(f"this file is not valid JSON: {error.msg}", where, hint) from None
    except ValueError as error:
        raise UserError(f"this file is not valid JSON: {error}", Location(str(path))) from None


@contextmanager
def opened(path: Path) -> Iterator[Iterator[bytes]]:
    """The lines of PATH as bytes, decompressed for `.gz` and `.zst`; raises UserError if it cannot be read."""
    try:
        with path.open("rb") as file:
            yield _known_encoding(_uncompressed(file, path), path)
    except OSError as error:
        if error.filename is None:
            raise
        raise UserError(f"cannot read {path}: {error.strerror}", hint="check the path, which is relative to the workspace") from None


def text_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Each line of PATH with its number, line ends unchanged; raises UserError, at the line, if it is not UTF-8."""
    with opened(path) as file:
        for number, raw in enumerate(file, 1):
            yield number, _decode(raw, Location(str(path), number))


_STARTS: Mapping[bytes, tuple[str, str]] = {
    rb"\x1f\x8b": ("is compressed by gzip", "rename it to end in .gz"),
    rb"\x28\xb5\x2f\xfd": ("is compressed by zstd", "rename it to end in .zst"),
    rb"BZh[1-9](1AY&SY|\x17rE8P\x90)": ("is compressed by bzip2", "decompress it with bunzip2"),
    rb"\xfd7zXZ": ("is compressed by xz", "decompress it with unxz"),
    rb"PK\x03\x04": ("is a zip archive", "unpack it with unzip"),
    rb"PAR1[\x00-\x08\x0e-\x1f]": ("is a Parquet file", 'use kind = "parquet"'),
    re.escape(codecs.BOM_UTF32_LE): ("is UTF-32, not UTF-8", "save it as UTF-8, such as with: iconv -f UTF-32 -t UTF-8"),
    re.escape(codecs.BOM_UTF32_BE): ("is UTF-32, not UTF-8", "save it as UTF-8, such as with: iconv -f UTF-32 -t UTF-8"),
    re.escape(codecs.BOM_UTF16_LE): ("is UTF-16, not UTF-8", "save it as UTF-8, such as with: iconv -f UTF-16 -t UTF-8"),
    re.escape(codecs.BOM_UTF16_BE): ("is UTF-16, not UTF-8", "save it as UTF-8, such as with: iconv -f UTF-16 -t UTF-8"),
}
"""Signatures of files that are not UTF-8 text (regular expressions that match no text), with their format and a hint."""


def _known_encoding(lines: Iterator[bytes], path: Path) -> Iterator[bytes]:
    """LINES, after checking the first one; raises UserError if it has the signature of another format."""
    first = next(lines, b"")
    for start, (what, hint) in _STARTS.items():
        if re.match(start, first):
            raise UserError(f"this file {what}", Location(str(path)), hint)
    if b"\0" in first[:4]:
        hint = "if it is UTF-16, save it as UTF-8, such as with: iconv -f UTF-16LE -t UTF-8"
        raise UserError("this file is not UTF-8 text: it begins with a zero byte", Location(str(path)), hint)
    if first:
        yield first
    yield from lines


def _uncompressed(file: BinaryIO, path: Path) -> Iterator[bytes]:
    if path.suffix == ".gz":
        yield from _checked(gzip.GzipFile(fileobj=file), path, (OSError, EOFError, zlib.error))
    elif path.suffix == ".zst":
        import zstandard

        yield from _checked(_lines(_zstd(file)), path, (EOFError, zstandard.ZstdError))
    else:
        yield from file


def _zstd(file: BinaryIO) -> Iterator[bytes]:
    """The content of a `.zst` file in pieces; several frames are one stream, as after `cat a.zst b.zst`."""
    import zstandard

    frame = None
    while piece := file.read(_PIECE):
        while piece:
            frame = frame or zstandard.ZstdDecompressor().decompressobj()
            yield frame.decompress(piece)
            piece = frame.unused_data if frame.eof else b""
            frame = None if frame.eof else frame
    if frame:  # the library's stream would treat truncation as the end
        raise EOFError("it ends before the end of the stream")


def _lines(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """The lines of a text that arrives in PIECES."""
    rest = b""
    for piece in pieces:
        *whole, rest = (rest + piece).split(b"\n")
        yield from (line + b"\n" for line in whole)
    if rest:
        yield rest


def _checked(lines: Iterable[bytes], path: Path, broken: tuple[type[Exception], ...]) -> Iterator[bytes]:
    try:
        yield from lines
    except broken as error:
        raise UserError(f"cannot decompress this file: {error}", Location(str(path)), "it may be truncated: fetch it again") from None


def _parse(raw: bytes, where: Location) -> dict[str, object]:
    text = _decode(raw, where).rstrip("\r\n")
    try:
        value = strict_json.parse(text)
    except json.JSONDecodeError as error:
        shown = Location(where.file, where.line, error.colno, _excerpt(text))
        if BOM in text[max(error.pos - 1, 0) : error.pos + 1]:
            raise UserError("byte order mark (BOM) in the middle of the line", shown, _BOM_HINT) from None
        raise UserError(f"this line is not valid JSON: {error.msg}", shown, _HINT) from None
    except ValueError as error:
        raise UserError(f"this line is not valid JSON: {error}", where, _HINT) from None
    if not isinstance(value, dict):
        raise UserError(f"this line must be a JSON object, got {type_name(value)}", where, _HINT)
    return value


def _decode(raw: bytes, where: Location) -> str:
    """The text of a line, with its line end; raises UserError if it is not UTF-8, or begins with a byte order mark."""
    try:
        text = raw.decode("utf-8-sig" if where.line == 1 else "utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"this line is not UTF-8: {error.reason} at byte {error.start}", where, "save the file as UTF-8") from None
    if text.startswith(BOM):
        raise UserError(
            "this line begins with a byte order mark (BOM), which is allowed only at the beginning of the file", where, _BOM_HINT
        )
    return text


def _excerpt(text: str) -> str | None:
    """The line, if short enough to be shown whole: truncation would misplace the caret."""
    return text if len(text) <= _SHOWN else None


def dumps(row: Mapping[str, object]) -> str:
    """One line of JSON without the newline; non-ASCII characters are kept, lone surrogates are escaped."""
    text = json.dumps(row, ensure_ascii=False, allow_nan=False)
    try:
        text.encode()
    except UnicodeEncodeError:
        return json.dumps(row, allow_nan=False)
    return text


class Writer:
    """A JSONL file to which rows are appended; a context manager."""

    def __init__(self, path: Path) -> None:
        self.rows = 0
        self._file = path.open("wb")

    def write(self, row: Mapping[str, object]) -> None:
        """Append one row."""
        self._file.write(dumps(row).encode() + b"\n")
        self.rows += 1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, error_type: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._file.close()


def write_rows(path: Path, rows: Iterable[Mapping[str, object]]) -> int:
    """Write ROWS, one per line, and return their number."""
    with Writer(path) as writer:
        for row in rows:
            writer.write(row)
    return writer.rows
