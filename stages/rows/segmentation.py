"""Word segmentation for all scripts: at the word boundaries of Unicode Standard Annex 29, or into characters.

Scripts without spaces between words (Chinese, Japanese, Thai, Lao, Khmer, Burmese) cannot be segmented without a dictionary; UAX 29 then
yields one character with its marks at a time, which is also how such texts are scored in the literature.
"""

import re
import unicodedata
from typing import Literal

import regex

Segmentation = Literal["unicode", "characters", "published"]
"""Segmentation of a metric: `published` is that of the metric's original implementation, for all scripts."""

_BOUNDARY = regex.compile(r"(?V1w)\b")  # the flag `w`: boundaries of UAX 29 instead of those between \w and \W
_MARKS = r"\p{M}\u200c\u200d"
_RUN = regex.compile(rf"[\w{_MARKS}]+")
_ASCII_RUN = re.compile(r"\w+", re.ASCII)
_CHARACTER = regex.compile(r"\X")
_SEEN = regex.compile(r"\w")
_FOREIGN_PUNCTUATION = regex.compile(r"(?V1)[\p{P}--[\u0000-\u00ff\u2000-\u206f]]")
_SPACELESS = regex.compile(r"[\p{Script=Han}\p{Script=Hiragana}\p{Script=Katakana}\p{Line_Break=Complex_Context}]")


def words(text: str) -> list[str]:
    """The words of TEXT in order: letters, digits and underscores with their marks; segmented at the boundaries of UAX 29 and at other
    characters, so that ASCII text yields exactly its matches of `\\w+`."""
    if text.isascii():
        return _ASCII_RUN.findall(text)
    # NFC: canonically equivalent texts must be equal; an accent may be a separate character.
    segments = _BOUNDARY.split(unicodedata.normalize("NFC", text))
    return [run for segment in segments for run in _RUN.findall(segment) if _SEEN.search(run)]


def characters(text: str) -> list[str]:
    """Each letter and digit of TEXT with its marks (grapheme clusters of UAX 29)."""
    found: list[str] = _CHARACTER.findall(unicodedata.normalize("NFC", text))
    return [character for character in found if _SEEN.search(character) and character != "_"]


def is_spaceless(text: str) -> bool:
    """Whether TEXT contains letters of a script without spaces between words."""
    return not text.isascii() and _SPACELESS.search(text) is not None


def without_punctuation(text: str) -> str:
    """TEXT in NFC without the punctuation of non-Latin scripts; typographic quotes and dashes are kept, as in SQuAD."""
    return text if text.isascii() else _FOREIGN_PUNCTUATION.sub("", unicodedata.normalize("NFC", text))


def count_words(text: str) -> int:
    """Number of words in TEXT: separated by spaces, and single characters in scripts without spaces."""
    return sum(len(words(chunk)) if is_spaceless(chunk) else 1 for chunk in text.split())


def has_letters_beyond_ascii(text: str) -> bool:
    """Whether TEXT contains non-ASCII letters or digits."""
    return not text.isascii() and any(not character.isascii() for character in _SEEN.findall(text))
