"""Template files, as written by users' editors."""

import codecs
from pathlib import Path

from engine.core.errors import Location, UserError


def read_template(path: Path, shown: str | None = None) -> str:
    """The text of a template file, without a byte order mark, which would otherwise be part of every prompt.

    Raises UserError, located at the file (under the name SHOWN, if given), if it cannot be read or is not UTF-8.
    """
    where = Location(shown or str(path))
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {where}: {error.strerror}", where) from None
    if raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise UserError("this template is UTF-16, not UTF-8", where, "save it as UTF-8, such as with: iconv -f UTF-16 -t UTF-8")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"this template is not UTF-8: {error.reason} at byte {error.start}", where, "save it as UTF-8") from None
