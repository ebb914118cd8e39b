"""Small questions about text."""

_SHOWN = 120


def is_well_formed(text: str) -> bool:
    """Whether TEXT can be written as UTF-8; JSON can smuggle in lone surrogates (`"\\ud800"`), which cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def shorten(text: str, limit: int = _SHOWN) -> str:
    """TEXT quoted for a message, control characters and lone surrogates as escapes, cut after LIMIT characters."""
    return repr(text if len(text) <= limit else text[:limit] + "…")


def ascii_surrogates(text: str) -> str:
    """TEXT with lone surrogates as visible escapes, so that a terminal can print it."""
    return text.encode("utf-8", "backslashreplace").decode()
