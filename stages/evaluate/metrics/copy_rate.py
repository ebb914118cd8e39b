"""How much of an answer is copied from the prompt (Grusky et al., 2018, arXiv:1804.11283)."""

from collections.abc import Sequence
from typing import ClassVar, Literal

from engine.core.part import Part, recipe
from stages.evaluate.metrics.statistic import Prediction, Statistic, answer_of, ratio_of
from stages.evaluate.metrics.words import blind_rows, words
from stages.rows.segmentation import Segmentation


class CopyRate(Part):
    """Extractive fragment coverage: share of the answers' words inside fragments copied from the prompt."""

    kind: Literal["copy_rate"] = "copy_rate"
    words: int = recipe(1, "Minimum length of a fragment, in words.", gt=0)
    segmentation: Segmentation = recipe(
        "unicode",
        "Word segmentation: `unicode` at the word boundaries of UAX 29, one character at a time in scripts without spaces;"
        " `characters`; or `published`, at every character that is not a letter, digit or underscore.",
    )
    environment: ClassVar[tuple[str, ...]] = ("regex",)
    needs_reference: ClassVar[bool] = False

    def measure(self, predictions: Sequence[Prediction]) -> list[Statistic]:
        """`copy_rate`, 0 to 1, over all words of all answers."""
        pairs = [(words(p.prompt, self.segmentation), words(answer_of(p), self.segmentation)) for p in predictions]
        copied = [sum(n for n in fragments(prompt, answer) if n >= self.words) for prompt, answer in pairs]
        return [ratio_of("copy_rate", copied, [len(answer) for _, answer in pairs])]

    def blind(self, predictions: Sequence[Prediction]) -> int:
        """Number of rows with text in which this metric finds no words."""
        return blind_rows([(answer_of(p),) for p in predictions], lambda text: words(text, self.segmentation))


def fragments(source: Sequence[str], text: Sequence[str]) -> list[int]:
    """Lengths of the extractive fragments of TEXT in SOURCE: from left to right, each the longest match at its position."""
    places: dict[str, list[int]] = {}
    for position, word in enumerate(source):
        places.setdefault(word, []).append(position)
    found, start = [], 0
    while start < len(text):
        longest = max((_shared(source, place, text, start) for place in places.get(text[start], ())), default=0)
        if longest:
            found.append(longest)
        start += max(longest, 1)
    return found


def _shared(source: Sequence[str], place: int, text: Sequence[str], start: int) -> int:
    """Length of the common prefix of SOURCE[PLACE:] and TEXT[START:]."""
    length = 0
    while place + length < len(source) and start + length < len(text) and source[place + length] == text[start + length]:
        length += 1
    return length
