"""The loss of an objective on pairs or on judged answers, and what is measured of them, independent of the division of a global batch."""

from collections.abc import Sequence

import numpy as np
import torch

from stages.models.answers import answer_logps
from stages.tokens.files import Array
from stages.train.loop.data import Rows
from stages.train.loop.record import KL, MEASURES
from stages.train.objectives.base import Answers, PairObjective, Totals


class Preference:
    """An objective on the answers of ROWS; of pairs, positions 2i and 2i + 1 are the chosen and the rejected answer of pair i."""

    def __init__(self, objective: PairObjective, rows: Rows) -> None:
        self.objective = objective
        self._in_pairs = rows.are_pairs_of_answers
        self._counts, self._chosen = rows.supervised(), rows.chosen()
        self._reference: Array = np.zeros(len(rows), np.float32) if rows.reference is None else rows.reference
        self._has_kl = rows.mismatched is not None

    @property
    def measures(self) -> tuple[str, ...]:
        """The names of what is measured."""
        return (*MEASURES, KL) if self._has_kl else MEASURES

    def totals(self, positions: range, kl: float = 0.0) -> Totals:
        """The sizes of the rows at POSITIONS, whole pairs if there are pairs, with their divergence KL."""
        chosen, counts = (values[positions.start : positions.stop] for values in (self._chosen, self._counts))
        number = int(chosen.sum())
        return Totals(number, len(positions) - number, int(counts[chosen].sum()), kl)

    def part(
        self, logits: torch.Tensor, targets: torch.Tensor, positions: Sequence[int], totals: Totals
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The parts of the loss (with its graph) and of what is measured, float32, of the rows at POSITIONS; they sum to the batch's.

        LOGITS [tokens, vocabulary] are those that predict the supervised tokens of these rows, TARGETS.
        """
        counts, device = self._counts[list(positions)], targets.device
        logps = answer_logps(logits, targets, counts.tolist())
        reference = torch.from_numpy(self._reference[list(positions)]).to(device)
        tokens = torch.from_numpy(counts.astype(np.float32)).to(device)
        better, worse = (torch.from_numpy(np.flatnonzero(self._chosen[list(positions)] == side)).to(device) for side in (True, False))
        answers = Answers(*(values[side] for values in (logps, tokens, reference) for side in (better, worse)))
        loss = self.objective.loss_of(answers, totals)
        with torch.no_grad():
            measured = self._measured(answers, totals)
            if self._has_kl:
                # A part's share of the number that all parts have in common.
                measured.append(loss.new_tensor(totals.kl * len(positions) / (totals.chosen + totals.rejected)))
            return loss, torch.stack(measured)

    def _measured(self, answers: Answers, totals: Totals) -> list[torch.Tensor]:
        """The values of MEASURES, float32 each."""
        chosen, rejected = self.objective.rewards(answers)
        by_side = ((chosen, rejected), (answers.chosen, answers.rejected), (answers.chosen_tokens, answers.rejected_tokens))
        # Judged answers may all be of one sort in a batch: the means of the other are then 0.
        sizes = max(totals.chosen, 1), max(totals.rejected, 1)
        means = [values.sum() / size for sides in by_side for values, size in zip(sides, sizes, strict=True)]
        if self._in_pairs:
            compared = [(chosen > rejected).float().sum() / totals.pairs, (chosen - rejected).sum() / totals.pairs]
        else:
            right = (chosen > 0).float().sum() + (rejected < 0).float().sum()
            compared = [right / (totals.chosen + totals.rejected), means[0] - means[1]]
        return compared + means
