"""Odds ratio preference optimization (Hong et al., 2024, arXiv:2403.07691): supervised training and preferences in one loss."""

from typing import TYPE_CHECKING, ClassVar, Literal

from engine.core.part import recipe
from stages.train.objectives.base import Answers, PairObjective, Totals

if TYPE_CHECKING:
    from torch import Tensor


class Orpo(PairObjective):
    """Cross entropy of the chosen answers, plus a penalty on the odds of the rejected ones; without a reference model."""

    kind: Literal["orpo"] = "orpo"
    weight: float = recipe(0.1, "Weight of the odds ratio, added to the cross entropy (lambda in the paper, `beta` in TRL).", gt=0)
    remedy: ClassVar[str] = "decrease training.objective.weight"  # the cross entropy of the chosen answers then weighs more

    def loss_of(self, answers: Answers, totals: Totals) -> "Tensor":
        """Cross entropy per token of the chosen answers, plus the mean of the pairs' odds ratio losses (equations 6 and 7)."""
        from torch.nn.functional import logsigmoid

        chosen, rejected = answers.chosen / answers.chosen_tokens, answers.rejected / answers.rejected_tokens
        log_odds = (chosen - rejected) - (_log_of_rest(chosen) - _log_of_rest(rejected))
        return -answers.chosen.sum() / totals.chosen_tokens - self.weight * logsigmoid(log_odds).sum() / totals.pairs

    def rewards(self, answers: Answers) -> "tuple[Tensor, Tensor]":
        """The weight times the log-probability per token."""
        return self.weight * answers.chosen / answers.chosen_tokens, self.weight * answers.rejected / answers.rejected_tokens


def _log_of_rest(logp: "Tensor") -> "Tensor":
    """log(1 - exp(LOGP)) without cancellation (Mächler, 2012, "Accurately computing log(1 - exp(-|a|))")."""
    import torch

    # A token of probability 1 has infinite odds; the smallest step below keeps its gradient finite.
    logp = logp.clamp(max=-torch.finfo(logp.dtype).eps)
    near = logp > -0.6931472
    small = torch.log(-torch.expm1(torch.where(near, logp, torch.full_like(logp, -0.5))))
    return torch.where(near, small, torch.log1p(-torch.exp(torch.where(near, torch.full_like(logp, -1.0), logp))))
