"""ROUGE (Lin, 2004, https://aclanthology.org/W04-1013), through Google's rouge-score."""

from collections.abc import Sequence
from typing import ClassVar, Literal

from engine.part import Part, recipe
from stages.evaluate.metrics.statistic import Prediction, Statistic, answer_of, mean_of, reference_of


class Rouge(Part):
    """F-measures of ROUGE-1, ROUGE-2, ROUGE-L and ROUGE-Lsum, mean over the answers."""

    kind: Literal["rouge"] = "rouge"
    stemmer: bool = recipe(False, "Compare word stems (English only).")
    environment: ClassVar[tuple[str, ...]] = ("nltk", "rouge-score")
    needs_reference: ClassVar[bool] = True

    def measure(self, predictions: Sequence[Prediction]) -> list[Statistic]:
        """`rouge1`, `rouge2`, `rougeL` and `rougeLsum` (sentences end at line ends), 0 to 1."""
        from rouge_score.rouge_scorer import RougeScorer

        names = ["rouge1", "rouge2", "rougeL", "rougeLsum"]
        scorer = RougeScorer(names, use_stemmer=self.stemmer)
        scores = [scorer.score(reference_of(p), answer_of(p)) for p in predictions]
        return [mean_of(name, [score[name].fmeasure for score in scores]) for name in names]
