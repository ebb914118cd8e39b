"""JSON lines: read with located errors, written byte-deterministically."""

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

_HINT = "one JSON object a line is expected"
_SHOWN = 200
BOM = "\ufeff"
_BOM_HINT = "files were joined that each begin with one; take it out, such as with: sed -i 's/\\xEF\\xBB\\xBF//g' FILE"
_PIECE = 1 << 17


def read_objects(path: Path) -> Iterator[tuple[Location, dict[str, object]]]:
    """Each object of PATH with its location; blank lines are skipped; raises UserError at the first line that is no JSON object.

    A file that ends in `.gz` or `.zst` is uncompressed while it is read.
    """
    with opened(path) as file:
        # A binary file is cut at \n alone; str.splitlines would also cut at U+2028, an ordinary character inside a JSON string.
        for number, raw in enumerate(file, 1):
            if raw.strip():
                where = Location(str(path), number)
                yield where, _parse(raw, where)


def read_document(path: Path) -> object:
    """The one JSON value that PATH holds, compressed or not; raises UserError where it holds none."""
    with opened(path) as file:
        raw = b"".join(file)
    text = _decode(raw, Location(str(path), 1))
    try:
        return strict_json.parse(text)
    except json.JSONDecodeError as error:
        line = text.split("\n")[error.lineno - 1]
        if text[error.pos : error.pos + 1] == BOM:
            raise UserError("there is a byte order mark in the midst of this file", Location(str(path), error.lineno), _BOM_HINT) from None
        hint = 'where each line is a JSON object, take kind = "jsonl"' if error.msg == "Extra data" else None
        where = Location(str(path), error.lineno, error.colno, _excerpt(line))
        raise UserError(f"this file is no JSON: {error.msg}", where, hint) from None
    except ValueError as error:
        raise UserError(f"this file is no JSON: {error}", Location(str(path))) from None


@contextmanager
def opened(path: Path) -> Iterator[Iterator[bytes]]:
    """The lines of PATH as bytes, uncompressed where its name ends in `.gz` or `.zst`; raises UserError where it cannot be read."""
    try:
        with path.open("rb") as file:
            yield _known_encoding(_uncompressed(file, path), path)
    except OSError as error:
        if error.filename is None:
            raise
        raise UserError(f"cannot read {path}: {error.strerror}", hint="is the path right, relative to the workspace?") from None


def text_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Each line of PATH with its number, line ends as they are; raises UserError, at the line, where it is not UTF-8."""
    with opened(path) as file:
        for number, raw in enumerate(file, 1):
            yield number, _decode(raw, Location(str(path), number))


_STARTS: Mapping[bytes, tuple[str, str]] = {
    rb"\x1f\x8b": ("is compressed by gzip", "give it a name that ends in .gz"),
    rb"\x28\xb5\x2f\xfd": ("is compressed by zstd", "give it a name that ends in .zst"),
    rb"BZh[1-9](1AY&SY|\x17rE8P\x90)": ("is compressed by bzip2", "uncompress it with bunzip2"),
    rb"\xfd7zXZ": ("is compressed by xz", "uncompress it with unxz"),
    rb"PK\x03\x04": ("is a zip archive", "unpack it with unzip"),
    rb"PAR1[\x00-\x08\x0e-\x1f]": ("is a Parquet file", 'take kind = "parquet"'),
    re.escape(codecs.BOM_UTF32_LE): ("is UTF-32, not UTF-8", "save it as UTF-8, such as with: iconv -f UTF-32 -t UTF-8"),
    re.escape(codecs.BOM_UTF32_BE): ("is UTF-32, not UTF-8", "save it as UTF-8, such as with: iconv -f UTF-32 -t UTF-8"),
    re.escape(codecs.BOM_UTF16_LE): ("is UTF-16, not UTF-8", "save it as UTF-8, such as with: iconv -f UTF-16 -t UTF-8"),
    re.escape(codecs.BOM_UTF16_BE): ("is UTF-16, not UTF-8", "save it as UTF-8, such as with: iconv -f UTF-16 -t UTF-8"),
}
"""How files begin that are no UTF-8 text (regular expressions that no text matches), what they are, and what to do."""


def _known_encoding(lines: Iterator[bytes], path: Path) -> Iterator[bytes]:
    """LINES, of which the first says what the file is; raises UserError where that is no UTF-8 text."""
    first = next(lines, b"")
    for start, (what, hint) in _STARTS.items():
        if re.match(start, first):
            raise UserError(f"this file {what}", Location(str(path)), hint)
    if b"\0" in first[:4]:
        hint = "if it is UTF-16, save it as UTF-8, such as with: iconv -f UTF-16LE -t UTF-8"
        raise UserError("this file is no UTF-8 text: it begins with a zero byte", Location(str(path)), hint)
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
    """The content of a `.zst` file, piece by piece; several frames are one stream, as with `cat a.zst b.zst`."""
    import zstandard

    frame = None
    while piece := file.read(_PIECE):
        while piece:
            frame = frame or zstandard.ZstdDecompressor().decompressobj()
            yield frame.decompress(piece)
            piece = frame.unused_data if frame.eof else b""
            frame = None if frame.eof else frame
    if frame:  # the library's own stream would take the cut for the end
        raise EOFError("it ends before the end of the stream")


def _lines(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """The lines of a text that comes in PIECES."""
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
        raise UserError(f"this file cannot be uncompressed: {error}", Location(str(path)), "is it whole? fetch it again") from None


def _parse(raw: bytes, where: Location) -> dict[str, object]:
    text = _decode(raw, where).rstrip("\r\n")
    try:
        value = strict_json.parse(text)
    except json.JSONDecodeError as error:
        shown = Location(where.file, where.line, error.colno, _excerpt(text))
        if BOM in text[max(error.pos - 1, 0) : error.pos + 1]:
            raise UserError("there is a byte order mark in the midst of this line", shown, _BOM_HINT) from None
        raise UserError(f"this line is no JSON: {error.msg}", shown, _HINT) from None
    except ValueError as error:
        raise UserError(f"this line is no JSON: {error}", where, _HINT) from None
    if not isinstance(value, dict):
        raise UserError(f"this line holds {type_name(value)}, not a JSON object", where, _HINT)
    return value


def _decode(raw: bytes, where: Location) -> str:
    """The text of a line, line end included; raises UserError where it is not UTF-8, or begins as only a file may begin."""
    try:
        text = raw.decode("utf-8-sig" if where.line == 1 else "utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"this line is not UTF-8: {error.reason} at byte {error.start}", where, "save the file as UTF-8") from None
    if text.startswith(BOM):
        raise UserError("this line begins with a byte order mark, which may stand at the beginning of a file alone", where, _BOM_HINT)
    return text


def _excerpt(text: str) -> str | None:
    """The line where it is short enough to be shown whole: a cut one would move the caret."""
    return text if len(text) <= _SHOWN else None


_TYPE_NAMES = {
    type(None): "null",
    bool: "true or false",
    int: "a number",
    float: "a number",
    str: "text",
    list: "a list",
    dict: "an object",
}


def type_name(value: object) -> str:
    """What a JSON value is, in JSON's words."""
    return _TYPE_NAMES[type(value)]


def dumps(row: Mapping[str, object]) -> str:
    """One line of JSON, without the newline; characters stay themselves, lone surrogates are escaped."""
    text = json.dumps(row, ensure_ascii=False, allow_nan=False)
    try:
        text.encode()
    except UnicodeEncodeError:
        return json.dumps(row, allow_nan=False)
    return text


class Writer:
    """A JSONL file that rows are added to, one at a time; a context manager."""

    def __init__(self, path: Path) -> None:
        self.rows = 0
        self._file = path.open("wb")

    def write(self, row: Mapping[str, object]) -> None:
        """Add one row."""
        self._file.write(dumps(row).encode() + b"\n")
        self.rows += 1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, error_type: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._file.close()


def write_rows(path: Path, rows: Iterable[Mapping[str, object]]) -> int:
    """Write ROWS, one a line, and return how many there were."""
    with Writer(path) as writer:
        for row in rows:
            writer.write(row)
    return writer.rows
