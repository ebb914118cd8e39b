"""Small text functions."""

_SHOWN = 120


def is_well_formed(text: str) -> bool:
    """Whether TEXT can be encoded as UTF-8; lone surrogates (`"\\ud800"`), which JSON escapes allow, cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def shorten(text: str, limit: int = _SHOWN) -> str:
    """TEXT quoted for a message, with control characters and lone surrogates escaped, truncated to LIMIT characters."""
    return repr(text if len(text) <= limit else text[:limit] + "…")


def ascii_surrogates(text: str) -> str:
    """TEXT with lone surrogates escaped, so that it can be printed."""
    return text.encode("utf-8", "backslashreplace").decode()
