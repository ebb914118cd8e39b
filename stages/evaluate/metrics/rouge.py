"""ROUGE (Lin, 2004, https://aclanthology.org/W04-1013), through Google's rouge-score."""

from collections.abc import Callable, Sequence
from typing import ClassVar, Literal

from engine.core.part import Part, recipe
from stages.evaluate.metrics.statistic import Prediction, Statistic, answer_of, mean_of, references_of
from stages.evaluate.metrics.words import blind_rows
from stages.rows import segmentation
from stages.rows.segmentation import Segmentation

_STEMMED = 4
"""Minimum length of stemmed words, in characters, as in rouge-score."""


class Rouge(Part):
    """F-measures of ROUGE-1, ROUGE-2, ROUGE-L and ROUGE-Lsum, averaged over the answers; best of several references."""

    kind: Literal["rouge"] = "rouge"
    stemmer: bool = recipe(False, "Compare word stems (English only).")
    segmentation: Segmentation = recipe(
        "unicode",
        "Word segmentation: `unicode` at the word boundaries of UAX 29, one character at a time in scripts without spaces (for ASCII"
        " text the same as rouge-score); `characters`; or `published`: rouge-score's, which keeps only a to z and 0 to 9.",
    )
    environment: ClassVar[tuple[str, ...]] = ("nltk", "regex", "rouge-score")
    needs_reference: ClassVar[bool] = True

    def measure(self, predictions: Sequence[Prediction]) -> list[Statistic]:
        """`rouge1`, `rouge2`, `rougeL` and `rougeLsum` (sentences end at line ends), 0 to 1."""
        from rouge_score.rouge_scorer import RougeScorer

        names = ["rouge1", "rouge2", "rougeL", "rougeLsum"]
        scorer = RougeScorer(names, tokenizer=_Tokenizer(self._cut()))
        scores = [scorer.score_multi(references_of(p), answer_of(p)) for p in predictions]
        return [mean_of(name, [score[name].fmeasure for score in scores], bounded=True) for name in names]

    def blind(self, predictions: Sequence[Prediction]) -> int:
        """Number of rows in which this metric ignores letters of the answer or of a reference."""
        cut = self._cut()
        rows = [(answer_of(p), *references_of(p)) for p in predictions]
        if self.segmentation != "published":
            return blind_rows(rows, cut)
        return blind_rows(rows, lambda text: [] if segmentation.has_letters_beyond_ascii(text) else cut(text))

    def _cut(self) -> Callable[[str], list[str]]:
        from nltk.stem.porter import PorterStemmer
        from rouge_score.tokenize import tokenize

        stemmer = PorterStemmer() if self.stemmer else None
        chosen = {"unicode": segmentation.words, "characters": segmentation.characters}.get(self.segmentation)

        def cut(text: str) -> list[str]:
            if chosen is None or (text.isascii() and self.segmentation == "unicode"):
                published: list[str] = tokenize(text, stemmer)
                return published
            found = [part for word in chosen(text.lower()) for part in word.split("_") if part]
            return [stemmer.stem(word) if stemmer and len(word) >= _STEMMED and word.isascii() else word for word in found]

        return cut


class _Tokenizer:
    """A tokenizer in the interface of rouge-score."""

    def __init__(self, cut: Callable[[str], list[str]]) -> None:
        self.tokenize = cut
