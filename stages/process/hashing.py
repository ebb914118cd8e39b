"""Decisions by hash: the treatment of a row depends only on its content and a seed, never on other rows."""

import hashlib
import json


def canonical(value: object) -> bytes:
    """A canonical byte string of a JSON value: independent of the order of keys; `1`, `1.0`, `true` and `"1"` differ."""
    # ASCII escapes: a lone surrogate has no UTF-8 form, and different normalisation forms of a character stay different.
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode("ascii")


def content_hash(*values: object) -> str:
    """sha256 of VALUES, 64 hex digits."""
    return hashlib.sha256(canonical(values)).hexdigest()


def seed_from(*values: object) -> int:
    """A seed in [0, 2**256), a function of VALUES."""
    return int(content_hash(*values), 16)


def fraction(*values: object) -> float:
    """A float in [0, 1), uniformly distributed over VALUES."""
    # 53 bits: exact in a double, so that nothing is rounded up to 1.
    return (seed_from(*values) >> (256 - 53)) / (1 << 53)


def choice(count: int, *values: object) -> int:
    """An integer in [0, COUNT), uniformly distributed over VALUES (bias below 2**-200)."""
    return seed_from(*values) % count
