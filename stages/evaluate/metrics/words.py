"""Words and n-grams of a text, for metrics that compare answers with prompts or references."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence

from stages.rows import segmentation
from stages.rows.segmentation import Segmentation

_RUN = re.compile(r"\w+")

_CUT: Mapping[Segmentation, Callable[[str], list[str]]] = {
    "unicode": segmentation.words,
    "characters": segmentation.characters,
    "published": _RUN.findall,
}


def words(text: str, how: Segmentation = "unicode") -> list[str]:
    """The words of TEXT in lower case: runs of letters, digits and underscores, segmented by HOW."""
    return _CUT[how](text.lower())


def ngrams(items: Sequence[str], size: int) -> list[tuple[str, ...]]:
    """All n-grams of SIZE consecutive ITEMS, in order."""
    return [tuple(items[start : start + size]) for start in range(len(items) - size + 1)]


def blind_rows(texts: Iterable[Iterable[str]], cut: Callable[[str], Sequence[str]]) -> int:
    """Number of rows with a non-blank text in which CUT finds no words: only symbols, or letters that it does not support."""
    return sum(any(text.strip() and not cut(text) for text in row) for row in texts)
