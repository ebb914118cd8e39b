"""What BLEU and chrF have in common: sacrebleu scores sums of counts, and resampling gives many vectors of sums."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from stages.evaluate.metrics.statistic import Prediction, references_of

if TYPE_CHECKING:
    from stages.evaluate.metrics.statistic import Array


def reference_streams(predictions: Sequence[Prediction]) -> list[list[str | None]]:
    """The references as sacrebleu wants them: a list of all rows' first ones, of all rows' second ones, ...; None where a row has fewer."""
    found = [references_of(p) for p in predictions]
    return [[row[n] if n < len(row) else None for row in found] for n in range(max(map(len, found), default=1))]


def scores_of(scorer: Any, sums: "Array") -> "Array":
    """The score of each vector of SUMS [..., counts], by the formula of sacrebleu's SCORER itself."""
    import numpy as np

    flat = np.rint(sums.reshape(-1, sums.shape[-1])).astype(int).tolist()
    return np.array([scorer._compute_score_from_stats(row).score for row in flat]).reshape(sums.shape[:-1])
