"""Texts as the words in which rows are compared with each other."""

from stages.rows import segmentation


def words(text: str) -> list[str]:
    """The words of TEXT: letters and digits, case folded, without punctuation and underscores; single characters where a script puts no
    space between words."""
    return [part for word in segmentation.words(text.casefold()) for part in word.split("_") if part]
