"""ROUGE (Lin, 2004, https://aclanthology.org/W04-1013), through Google's rouge-score."""

from typing import ClassVar, Literal

from engine.part import Part, recipe
from stages.evaluate.metrics.prediction import Prediction, mean


class Rouge(Part):
    """F-measures of ROUGE-1, ROUGE-2 and ROUGE-L, mean over the answers."""

    kind: Literal["rouge"] = "rouge"
    stemmer: bool = recipe(False, "Compare word stems (English only).")
    environment: ClassVar[tuple[str, ...]] = ("nltk", "rouge-score")

    def score(self, predictions: list[Prediction]) -> dict[str, float]:
        """`rouge1`, `rouge2` and `rougeL`, 0 to 1."""
        from rouge_score.rouge_scorer import RougeScorer

        names = ["rouge1", "rouge2", "rougeL"]
        scorer = RougeScorer(names, use_stemmer=self.stemmer)
        scores = [scorer.score(p.reference, p.answer) for p in predictions]
        return {name: mean([score[name].fmeasure for score in scores]) for name in names}
