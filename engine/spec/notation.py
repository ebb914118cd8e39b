"""How keys and values are written for people: as TOML writes them."""

import json
import re

from engine.spec.positions import Key


def dotted(path: Key) -> str:
    """A path as one dotted key; elements of arrays by index, such as `tasks.headline.prompts[1]`."""
    text = ""
    for key in path:
        text += f"[{key}]" if isinstance(key, int) else f".{_quoted(key)}" if text else _quoted(key)
    return text


def toml(value: object) -> str:
    """A single value, or an array or table of them, as TOML writes it; `none` for None, which TOML cannot write."""
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
    """A value for a sentence: its sort in plain words, and the value itself where it is short."""
    match value:
        case bool():
            return toml(value)
        case int():
            return f"the whole number {value}" if abs(value) < 10**20 else "a very large whole number"
        case float():
            return f"the number {value}"
        case str():
            return f"the text '{value}'" if len(value) <= 40 and value.isprintable() else "a text"
        case tuple():
            return "an array"
    return "a table"


def _quoted(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else toml(key)
