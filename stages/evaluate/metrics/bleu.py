"""BLEU (Papineni et al., 2002, https://aclanthology.org/P02-1040), through sacrebleu (Post, 2018, arXiv:1804.08771)."""

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from engine.core.part import Part, recipe
from stages.evaluate.metrics.sacrebleu_sums import reference_streams, scores_of
from stages.evaluate.metrics.statistic import Prediction, Statistic, answer_of, references_of
from stages.rows.segmentation import is_spaceless


class Bleu(Part):
    """Corpus BLEU: n-gram counts and lengths are summed over all answers; a row may have any number of references."""

    kind: Literal["bleu"] = "bleu"
    tokenize: Literal["13a", "intl", "char", "zh", "none"] = recipe("13a", "sacrebleu's tokenizer.")
    lowercase: bool = recipe(False, "Whether case is ignored.")
    smooth: Literal["exp", "floor", "add-k", "none"] = recipe("exp", "Smoothing of n-gram counts of zero.")
    smooth_value: float | None = recipe(None, "Value of floor or add-k; if unset, sacrebleu's default.", gt=0)
    effective_order: bool = recipe(False, "Ignore n-gram orders longer than every answer, as for single sentences.")
    max_order: int = recipe(4, "Maximum n-gram order.", gt=0, le=9)
    environment: ClassVar[tuple[str, ...]] = ("regex", "sacrebleu")
    needs_reference: ClassVar[bool] = True

    def measure(self, predictions: Sequence[Prediction]) -> list[Statistic]:
        """`bleu`, 0 to 100, with sacrebleu's signature."""
        scorer = self._scorer()
        answers, references = [answer_of(p) for p in predictions], reference_streams([references_of(p) for p in predictions])
        # The terms that `corpus_score` sums: lengths of answer and reference, then matches and totals of each order.
        counts = scorer._extract_corpus_statistics(answers, references)
        return [Statistic("bleu", counts, lambda sums: scores_of(scorer, sums), str(scorer.get_signature()))]

    def blind(self, predictions: Sequence[Prediction]) -> int:
        """Number of rows whose sentences count as one word: their script has no spaces, and `tokenize` splits at spaces."""
        if self.tokenize in ("char", "zh"):
            return 0
        return sum(any(map(is_spaceless, (answer_of(p), *references_of(p)))) for p in predictions)

    def _scorer(self) -> Any:
        from sacrebleu.metrics import BLEU

        return BLEU(
            tokenize=self.tokenize,
            lowercase=self.lowercase,
            smooth_method=self.smooth,
            smooth_value=self.smooth_value,
            effective_order=self.effective_order,
            max_ngram_order=self.max_order,
        )
