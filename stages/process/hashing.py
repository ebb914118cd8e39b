"""Decisions by hash: what happens to a row depends on its own content and a seed, never on its neighbours."""

import hashlib
import json


def canonical(value: object) -> bytes:
    """One byte string for each JSON value: the order of keys does not matter; `1`, `1.0`, `true` and `"1"` differ."""
    # ASCII escapes: a lone surrogate has no UTF-8 form, and two spellings of one character stay two.
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode("ascii")


def content_hash(*values: object) -> str:
    """sha256 of VALUES, 64 hex digits."""
    return hashlib.sha256(canonical(values)).hexdigest()


def seed_from(*values: object) -> int:
    """A whole number below 2**256 to seed a generator with, decided by VALUES."""
    return int(content_hash(*values), 16)


def fraction(*values: object) -> float:
    """A number in [0, 1), evenly distributed over different VALUES."""
    # 53 bits: a double holds them exactly, so that nothing is rounded up to 1.
    return (seed_from(*values) >> (256 - 53)) / (1 << 53)


def choice(count: int, *values: object) -> int:
    """A whole number in [0, COUNT), evenly distributed over different VALUES (the bias is below 2**-200)."""
    return seed_from(*values) % count
