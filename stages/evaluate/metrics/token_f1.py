"""Word overlap as in SQuAD (Rajpurkar et al., 2016, arXiv:1606.05250)."""

import re
import string
from collections import Counter
from collections.abc import Sequence
from typing import ClassVar, Literal

from engine.core.part import Part, recipe
from stages.evaluate.metrics.statistic import Prediction, Statistic, answer_of, mean_of, references_of
from stages.evaluate.metrics.words import blind_rows
from stages.rows import segmentation
from stages.rows.segmentation import Segmentation

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


class TokenF1(Part):
    """Mean word-level F1 of answer and reference, without case, punctuation and articles; best of several references."""

    kind: Literal["token_f1"] = "token_f1"
    articles: bool = recipe(False, "Whether `a`, `an` and `the` count as words; SQuAD removes them.")
    segmentation: Segmentation = recipe(
        "unicode",
        "Word segmentation: `unicode` at white space, and in scripts without spaces at the word boundaries of"
        " UAX 29; `characters`; or `published`: at white space only, as in SQuAD.",
    )
    environment: ClassVar[tuple[str, ...]] = ("regex",)
    needs_reference: ClassVar[bool] = True

    def measure(self, predictions: Sequence[Prediction]) -> list[Statistic]:
        """`token_f1`, 0 to 1."""
        return [mean_of("token_f1", [self._best(p) for p in predictions], bounded=True)]

    def blind(self, predictions: Sequence[Prediction]) -> int:
        """Number of rows in which this metric finds no words in the answer or a reference, or takes a whole sentence for one word."""
        texts = [(answer_of(p), *references_of(p)) for p in predictions]
        if self.segmentation == "published":
            return sum(any(segmentation.is_spaceless(text) for text in row) for row in texts)
        return blind_rows(texts, segmentation.characters)

    def _best(self, prediction: Prediction) -> float:
        given = self._words(answer_of(prediction))
        return max(_overlap(given, self._words(reference)) for reference in references_of(prediction))

    def _words(self, text: str) -> list[str]:
        plain = text.lower().translate(_PUNCTUATION)
        found = (plain if self.articles else _ARTICLES.sub(" ", plain)).split()
        if self.segmentation == "published" or (plain.isascii() and self.segmentation == "unicode"):
            return found
        if self.segmentation == "characters":
            return [character for word in found for character in segmentation.characters(word)]
        return [part for word in found for part in _cut(word)]


def _cut(word: str) -> list[str]:
    """The parts of WORD, which was delimited by spaces: its characters if its script has no spaces, without punctuation."""
    if segmentation.is_spaceless(word):
        return segmentation.words(word)
    return [kept] if (kept := segmentation.without_punctuation(word)) else []


def _overlap(given: Sequence[str], wanted: Sequence[str]) -> float:
    if not given or not wanted:
        return float(given == wanted)
    shared = sum((Counter(given) & Counter(wanted)).values())
    return 2 * shared / (len(given) + len(wanted))
