"""Texts as the words in which they are compared."""

import re

_WORD = re.compile(r"[^\W_]+")


def words(text: str) -> list[str]:
    """The words of TEXT: runs of letters and digits, in lower case, without punctuation."""
    return _WORD.findall(text.casefold())
