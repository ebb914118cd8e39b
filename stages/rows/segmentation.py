"""Texts cut into words, whatever their script: by the word boundaries of Unicode Standard Annex 29, or into characters.

Scripts that put no space between words (Chinese, Japanese, Thai, Lao, Khmer, Burmese) have no boundaries that can be told without a
dictionary; UAX 29 gives one character with its marks at a time there, which is also how such texts are scored in the literature.
"""

import re
import unicodedata
from typing import Literal

import regex

Segmentation = Literal["unicode", "characters", "published"]
"""How a metric cuts a text: `published` is what the first implementation of the metric does, whatever the script."""

_BOUNDARY = regex.compile(r"(?V1w)\b")  # the flag `w`: boundaries of UAX 29 in place of those between \w and \W
_MARKS = r"\p{M}\u200c\u200d"
_RUN = regex.compile(rf"[\w{_MARKS}]+")
_ASCII_RUN = re.compile(r"\w+", re.ASCII)
_CHARACTER = regex.compile(r"\X")
_SEEN = regex.compile(r"\w")
_FOREIGN_PUNCTUATION = regex.compile(r"(?V1)[\p{P}--[\u0000-\u00ff\u2000-\u206f]]")
_SPACELESS = regex.compile(r"[\p{Script=Han}\p{Script=Hiragana}\p{Script=Katakana}\p{Line_Break=Complex_Context}]")


def words(text: str) -> list[str]:
    """The words of TEXT in order: letters, digits and underscores, with the marks on them; cut at the boundaries of UAX 29 and at whatever
    else is no letter, so that ASCII text gives exactly its runs of `\\w`."""
    if text.isascii():
        return _ASCII_RUN.findall(text)
    # Canonically equivalent texts are the same text: an accent may be a character of its own.
    segments = _BOUNDARY.split(unicodedata.normalize("NFC", text))
    return [run for segment in segments for run in _RUN.findall(segment) if _SEEN.search(run)]


def characters(text: str) -> list[str]:
    """Each letter and digit of TEXT with the marks on it (grapheme clusters of UAX 29)."""
    found: list[str] = _CHARACTER.findall(unicodedata.normalize("NFC", text))
    return [character for character in found if _SEEN.search(character) and character != "_"]


def is_spaceless(text: str) -> bool:
    """Whether TEXT holds letters of a script that puts no space between words."""
    return not text.isascii() and _SPACELESS.search(text) is not None


def without_punctuation(text: str) -> str:
    """TEXT, composed, without the punctuation of scripts other than Latin; typographic quotes and dashes stay, as they do in SQuAD."""
    return text if text.isascii() else _FOREIGN_PUNCTUATION.sub("", unicodedata.normalize("NFC", text))


def count_words(text: str) -> int:
    """How many words TEXT has, as people count them: what stands between spaces, and single characters where a script has no spaces."""
    return sum(len(words(chunk)) if is_spaceless(chunk) else 1 for chunk in text.split())


def has_letters_beyond_ascii(text: str) -> bool:
    """Whether TEXT holds letters or digits that are not ASCII."""
    return not text.isascii() and any(not character.isascii() for character in _SEEN.findall(text))
