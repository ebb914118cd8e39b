"""Overlap of words as SQuAD measures it (Rajpurkar et al., 2016, arXiv:1606.05250)."""

import re
import string
from collections import Counter
from collections.abc import Sequence
from typing import ClassVar, Literal

from engine.part import Part, recipe
from stages.evaluate.metrics.statistic import Prediction, Statistic, answer_of, mean_of, reference_of

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


class TokenF1(Part):
    """Mean F-measure of the words that answer and reference share, case, punctuation and articles aside."""

    kind: Literal["token_f1"] = "token_f1"
    articles: bool = recipe(False, "Whether `a`, `an` and `the` count as words; SQuAD leaves them out.")
    needs_reference: ClassVar[bool] = True

    def measure(self, predictions: Sequence[Prediction]) -> list[Statistic]:
        """`token_f1`, 0 to 1."""
        return [mean_of("token_f1", [self._score(answer_of(p), reference_of(p)) for p in predictions])]

    def _score(self, answer: str, reference: str) -> float:
        given, wanted = self._words(answer), self._words(reference)
        if not given or not wanted:
            return float(given == wanted)
        shared = sum((Counter(given) & Counter(wanted)).values())
        return 2 * shared / (len(given) + len(wanted))

    def _words(self, text: str) -> list[str]:
        plain = text.lower().translate(_PUNCTUATION)
        return (plain if self.articles else _ARTICLES.sub(" ", plain)).split()
