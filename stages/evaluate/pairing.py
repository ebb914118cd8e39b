"""Predictions of two models on the same rows, aligned."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from engine.core.errors import Location, UserError
from stages.rows.prediction import Prediction


@dataclass(frozen=True)
class Pair:
    """Predictions of two models on one task, and their files."""

    ours: Sequence[Prediction]
    theirs: Sequence[Prediction]
    ours_at: Path
    theirs_at: Path

    def common(self) -> tuple[list[Prediction], list[Prediction]]:
        """Predictions on the common rows, in our order; raises UserError if there are none or if their prompts or references differ."""
        known = {prediction.id: (line, prediction) for line, prediction in enumerate(self.theirs, 1)}
        pairs = [(one, known[one.id]) for one in self.ours if one.id in known]
        if not pairs:
            raise UserError(f"{self.theirs_at} has no row in common with {self.ours_at}", Location(str(self.theirs_at)), _HINT)
        for one, (line, other) in pairs:
            if (one.prompt, one.reference, one.references) != (other.prompt, other.reference, other.references):
                what = f"row {one.id} has a different prompt or reference in {self.ours_at}"
                raise UserError(what, Location(str(self.theirs_at), line), _HINT)
        return [one for one, _ in pairs], [other for _, (_, other) in pairs]


_HINT = "compare predictions on the test rows of one task, made from the same split"
