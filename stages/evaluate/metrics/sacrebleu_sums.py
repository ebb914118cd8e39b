"""What BLEU and chrF have in common: sacrebleu scores sums of counts, and resampling gives many vectors of sums."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stages.evaluate.metrics.statistic import Array


def scores_of(scorer: Any, sums: "Array") -> "Array":
    """The score of each vector of SUMS [..., counts], by the formula of sacrebleu's SCORER itself."""
    import numpy as np

    flat = np.rint(sums.reshape(-1, sums.shape[-1])).astype(int).tolist()
    return np.array([scorer._compute_score_from_stats(row).score for row in flat]).reshape(sums.shape[:-1])
