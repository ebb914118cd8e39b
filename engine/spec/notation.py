"""Formats keys and values in TOML syntax, for messages."""

import json
import re

from engine.spec.positions import Key


def dotted(path: Key) -> str:
    """A path as a dotted key, with array elements by index: `tasks.headline.prompts[1]`."""
    text = ""
    for key in path:
        text += f"[{key}]" if isinstance(key, int) else f".{_quoted(key)}" if text else _quoted(key)
    return text


def toml(value: object) -> str:
    """A scalar, array or table in TOML syntax; `none` for None, which TOML cannot express."""
    match value:
        case None:
            return "none"
        case bool():
            return "true" if value else "false"
        case str():
            return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
        case tuple():
            return f"[{', '.join(toml(item) for item in value)}]"
        case dict():
            return f"{{{', '.join(f'{_quoted(key)} = {toml(item)}' for key, item in value.items())}}}"
    return repr(value)


def described(value: object) -> str:
    """A value as a phrase: its type, and the value itself if it is short."""
    match value:
        case bool():
            return toml(value)
        case int():
            return f"the integer {value}" if abs(value) < 10**20 else "a very large integer"
        case float():
            return f"the number {value}"
        case str():
            return f"the string '{value}'" if len(value) <= 40 and value.isprintable() else "a string"
        case tuple():
            return "an array"
    return "a table"


def _quoted(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else toml(key)
