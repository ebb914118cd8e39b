"""Strict parser for foreign JSON: RFC 8259 and I-JSON (RFC 7493), where Python's parser is more permissive.

Python accepts `NaN` and `Infinity`, which are not JSON; reads `1e999` as infinity, which cannot be written back; and silently keeps the
last of duplicate keys. All of these are errors here, at any depth.
"""

import json
import math
from collections.abc import Mapping

_SHOWN = 40


def parse(text: str) -> object:
    """The value of TEXT; raises ValueError (json.JSONDecodeError with a position for syntax errors).

    The messages are part of the request that asks a teacher for a valid answer (see asking.schema), so an edit would change its cache key.
    """
    try:
        return _DECODER.decode(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def unwritable(value: object) -> str | None:
    """Why VALUE cannot be written as JSON and read back; None if it can."""
    if isinstance(value, float) and not math.isfinite(value):
        return f"{'NaN' if math.isnan(value) else 'Infinity' if value > 0 else '-Infinity'}, which is not a JSON number"
    if isinstance(value, int) and not isinstance(value, bool) and value.bit_length() > _LONGEST_BITS:
        return f"an integer of more than {_LONGEST_DIGITS:,} digits"
    if isinstance(value, str | bool | int | float) or value is None:
        return None
    if isinstance(value, Mapping):
        if strange := next((key for key in value if not isinstance(key, str)), None):
            return f"an object with the key {strange!r}, which is not text"
        return next((why for item in value.values() if (why := unwritable(item))), None)
    if isinstance(value, list | tuple):
        return next((why for item in value if (why := unwritable(item))), None)
    return f"a {type(value).__name__}, which is not a JSON value"


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
    """The type of a JSON value, in words."""
    return _TYPE_NAMES[type(value)]


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON number")


def _finite(digits: str) -> float:
    """A finite float; Python reads larger numbers as infinity, which cannot be written back."""
    value = float(digits)
    if math.isinf(value):
        raise ValueError(f"the number {digits[:_SHOWN]} is too large")
    return value


_LONGEST_DIGITS = 4300
"""Python's limit on digits of integers, against quadratic time (CVE-2020-10735)."""
_LONGEST_BITS = math.floor(_LONGEST_DIGITS * math.log2(10))


def _integer(digits: str) -> int:
    if len(digits) > _LONGEST_DIGITS:
        raise ValueError(f"the number {digits[:_SHOWN]}... has more than {_LONGEST_DIGITS:,} digits")
    return int(digits)


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """The object of PAIRS; raises ValueError for duplicate keys, of which Python would silently keep the last."""
    found = dict(pairs)
    if len(found) != len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1).encode("utf-8", "backslashreplace").decode()
        raise ValueError(f"key '{twice}' stands twice in one object")
    return found


_DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_no_constant, parse_float=_finite, parse_int=_integer)
