"""chrF (Popović, 2015, https://aclanthology.org/W15-3049), through sacrebleu."""

from collections.abc import Sequence
from typing import ClassVar, Literal

from engine.core.part import Part, recipe
from stages.evaluate.metrics.sacrebleu_sums import reference_streams, scores_of
from stages.evaluate.metrics.statistic import Prediction, Statistic, answer_of, references_of


class Chrf(Part):
    """F-score of character n-grams, summed over all answers (best of several references); chrF++ with `word_order = 2`."""

    kind: Literal["chrf"] = "chrf"
    char_order: int = recipe(6, "Maximum order of character n-grams.", gt=0)
    word_order: int = recipe(0, "Maximum order of word n-grams.", ge=0)
    beta: int = recipe(2, "Weight of recall relative to precision.", gt=0)
    lowercase: bool = recipe(False, "Whether case is ignored.")
    eps_smoothing: bool = recipe(False, "Use the epsilon smoothing of the original chrF++.py.")
    environment: ClassVar[tuple[str, ...]] = ("sacrebleu",)
    needs_reference: ClassVar[bool] = True

    def measure(self, predictions: Sequence[Prediction]) -> list[Statistic]:
        """`chrf`, 0 to 100, with sacrebleu's signature."""
        from sacrebleu.metrics import CHRF

        scorer = CHRF(
            char_order=self.char_order,
            word_order=self.word_order,
            beta=self.beta,
            lowercase=self.lowercase,
            eps_smoothing=self.eps_smoothing,
        )
        answers, references = [answer_of(p) for p in predictions], reference_streams([references_of(p) for p in predictions])
        # The terms that `corpus_score` sums: n-grams of the answer, of the reference, and of both, for each order.
        counts = scorer._extract_corpus_statistics(answers, references)
        return [Statistic("chrf", counts, lambda sums: scores_of(scorer, sums), str(scorer.get_signature()))]
