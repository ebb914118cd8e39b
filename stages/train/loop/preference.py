"""The loss of an objective on pairs, and what is measured of them, independent of the division of a global batch."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from stages.models.answers import answer_logps
from stages.tokens.files import Array
from stages.train.loop.data import Rows
from stages.train.objectives.base import Answers, PairObjective, Totals


class Preference:
    """An objective on the pairs of ROWS, of which positions 2i and 2i + 1 are the chosen and the rejected answer of pair i."""

    def __init__(self, objective: PairObjective, rows: Rows) -> None:
        self.objective = objective
        self._counts = rows.supervised()
        self._reference: Array = np.zeros(len(rows), np.float32) if rows.reference is None else rows.reference

    def totals(self, positions: range) -> Totals:
        """The sizes of the rows at POSITIONS, whole pairs."""
        return Totals(len(positions) // 2, int(self._counts[positions.start : positions.stop : 2].sum()))

    def part(self, outputs: Any, labels: torch.Tensor, positions: Sequence[int], totals: Totals) -> tuple[torch.Tensor, torch.Tensor]:
        """The parts of the loss (with its graph) and of MEASURES, float32, of the pairs at POSITIONS; they sum to those of the batch."""
        counts, device = self._counts[list(positions)], labels.device
        logps = answer_logps(outputs.logits, labels, counts.tolist())
        reference = torch.from_numpy(self._reference[list(positions)]).to(device)
        tokens = torch.from_numpy(counts.astype(np.float32)).to(device)
        pairs = Answers(logps[::2], logps[1::2], tokens[::2], tokens[1::2], reference[::2], reference[1::2])
        loss = self.objective.loss_of(pairs, totals)
        with torch.no_grad():
            chosen, rejected = self.objective.rewards(pairs)
            each = (
                *((chosen > rejected).float(), chosen - rejected, chosen, rejected),
                *(pairs.chosen, pairs.rejected, pairs.chosen_tokens, pairs.rejected_tokens),
            )
            return loss, torch.stack([values.sum() for values in each]) / totals.pairs
