"""The one reader of JSON texts that others wrote: RFC 8259 and I-JSON (RFC 7493), where Python's own takes more and drops some.

Python reads `NaN` and `Infinity`, which are no JSON; reads `1e999` as infinity, which cannot be written again; and of equal keys in one
object keeps the last one without a word. All of these are errors here, at any depth.
"""

import json
import math
from collections.abc import Mapping

from stages.rows.text import ascii_surrogates

_SHOWN = 40


def parse(text: str) -> object:
    """The value that TEXT holds; raises ValueError (json.JSONDecodeError with a place where the grammar is broken) with what is wrong."""
    try:
        return _DECODER.decode(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def unwritable(value: object) -> str | None:
    """Why VALUE cannot be written as JSON and read again; None where it can."""
    if isinstance(value, float) and not math.isfinite(value):
        return f"{'NaN' if math.isnan(value) else 'Infinity' if value > 0 else '-Infinity'}, which is no JSON number"
    if isinstance(value, int) and not isinstance(value, bool) and value.bit_length() > _LONGEST_BITS:
        return f"a whole number of more than {_LONGEST_DIGITS:,} digits"
    if isinstance(value, str | bool | int | float) or value is None:
        return None
    if isinstance(value, Mapping):
        if strange := next((key for key in value if not isinstance(key, str)), None):
            return f"an object with the key {strange!r}, which is no text"
        return next((why for item in value.values() if (why := unwritable(item))), None)
    if isinstance(value, list | tuple):
        return next((why for item in value if (why := unwritable(item))), None)
    return f"a {type(value).__name__}, which is no JSON value"


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON number")


def _finite(digits: str) -> float:
    """A float; one that Python reads as infinity is refused because it could not be written again."""
    value = float(digits)
    if math.isinf(value):
        raise ValueError(f"the number {digits[:_SHOWN]} is too large")
    return value


_LONGEST_DIGITS = 4300
"""Python neither reads nor writes longer whole numbers: it would take quadratic time (CVE-2020-10735)."""
_LONGEST_BITS = math.floor(_LONGEST_DIGITS * math.log2(10))


def _integer(digits: str) -> int:
    if len(digits) > _LONGEST_DIGITS:
        raise ValueError(f"the number {digits[:_SHOWN]}... has more than {_LONGEST_DIGITS:,} digits")
    return int(digits)


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """The object of PAIRS; Python would silently keep only the last of equal keys."""
    found = dict(pairs)
    if len(found) != len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"key '{ascii_surrogates(next(key for key in keys if keys.count(key) > 1))}' stands twice in one object")
    return found


_DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_no_constant, parse_float=_finite, parse_int=_integer)
