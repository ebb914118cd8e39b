"""Words and n-grams of a text, for metrics that compare answers with prompts or references."""

import re
from collections.abc import Sequence

_WORD = re.compile(r"\w+")


def words(text: str) -> list[str]:
    """The words of TEXT: runs of letters, digits and underscores, lower case."""
    return _WORD.findall(text.lower())


def ngrams(items: Sequence[str], size: int) -> list[tuple[str, ...]]:
    """All runs of SIZE neighbouring items, in order."""
    return [tuple(items[start : start + size]) for start in range(len(items) - size + 1)]
