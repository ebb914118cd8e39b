"""Words for comparing rows with each other."""

from stages.rows import segmentation


def words(text: str) -> list[str]:
    """The words of TEXT: letters and digits, case-folded, without punctuation and underscores; single characters in scripts without
    spaces."""
    return [part for word in segmentation.words(text.casefold()) for part in word.split("_") if part]
