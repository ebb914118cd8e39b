"""Shared by BLEU and chrF: sacrebleu scores computed from summed counts, for the many vectors of sums that resampling produces."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stages.evaluate.metrics.statistic import Array


def reference_streams(references: Sequence[Sequence[str]]) -> list[list[str | None]]:
    """REFERENCES [rows][references] in sacrebleu's form: [references][rows], None where a row has fewer."""
    return [[row[n] if n < len(row) else None for row in references] for n in range(max(map(len, references), default=1))]


def scores_of(scorer: Any, sums: "Array") -> "Array":
    """Scores [...] of SUMS [..., counts], computed by sacrebleu's SCORER."""
    import numpy as np

    flat = np.rint(sums.reshape(-1, sums.shape[-1])).astype(int).tolist()
    return np.array([scorer._compute_score_from_stats(row).score for row in flat]).reshape(sums.shape[:-1])
