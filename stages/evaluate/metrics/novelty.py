"""Share of novel n-grams (See et al., 2017, arXiv:1704.04368)."""

from collections.abc import Sequence
from typing import ClassVar, Literal

from engine.core.part import Part, recipe
from stages.evaluate.metrics.statistic import Prediction, Statistic, answer_of, ratio_of
from stages.evaluate.metrics.words import blind_rows, ngrams, words
from stages.rows.segmentation import Segmentation


class Novelty(Part):
    """Share of the answers' n-grams that do not occur in the prompt, over all answers."""

    kind: Literal["novelty"] = "novelty"
    ngram: int = recipe(2, "Words per n-gram.", gt=0)
    segmentation: Segmentation = recipe(
        "unicode",
        "Word segmentation: `unicode` at the word boundaries of UAX 29, one character at a time in scripts without spaces;"
        " `characters`; or `published`, at every character that is not a letter, digit or underscore.",
    )
    environment: ClassVar[tuple[str, ...]] = ("regex",)
    needs_reference: ClassVar[bool] = False

    def measure(self, predictions: Sequence[Prediction]) -> list[Statistic]:
        """`novelty`, 0 to 1; answers shorter than an n-gram do not count."""
        new, all_of = [], []
        for prediction in predictions:
            known = set(ngrams(words(prediction.prompt, self.segmentation), self.ngram))
            made = ngrams(words(answer_of(prediction), self.segmentation), self.ngram)
            new.append(sum(gram not in known for gram in made))
            all_of.append(len(made))
        return [ratio_of("novelty", new, all_of)]

    def blind(self, predictions: Sequence[Prediction]) -> int:
        """Number of rows with text in which this metric finds no words."""
        return blind_rows([(answer_of(p),) for p in predictions], lambda text: words(text, self.segmentation))
