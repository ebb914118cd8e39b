"""Kahneman-Tversky optimization (Ethayarajh et al., 2024, arXiv:2402.01306): answers that are desirable or not, each judged alone."""

from typing import TYPE_CHECKING, ClassVar, Literal

from engine.core.part import recipe
from stages.train.objectives.base import Answers, PairObjective, Totals

if TYPE_CHECKING:
    from torch import Tensor


class Kto(PairObjective):
    """Makes desirable answers likelier and undesirable ones less likely than the model does that the training starts from.

    Both are measured against the divergence from this reference, estimated from mismatched answers, once for each global batch.
    """

    kind: Literal["kto"] = "kto"
    beta: float = recipe(0.1, "Strength of the tie to the reference model: higher values change the model less.", gt=0)
    loss: Literal["kto", "apo_zero_unpaired"] = recipe(
        "kto",
        "Loss of an answer: `kto`, or `apo_zero_unpaired` (D'Oosterlinck et al., 2024, arXiv:2408.06266), which sets the divergence to 0.",
    )
    desirable_weight: float = recipe(
        1.0, "Weight of the desirable (chosen) answers (lambda_D in the paper): raise it where they are fewer.", gt=0
    )
    undesirable_weight: float = recipe(1.0, "Weight of the undesirable (rejected) answers (lambda_U in the paper).", gt=0)
    on_judged: ClassVar[bool] = True
    needs_reference: ClassVar[bool] = True
    remedy: ClassVar[str] = "raise training.objective.beta or training.objective.desirable_weight"

    @property
    def estimates_kl(self) -> bool:
        """Whether the divergence is estimated: not if it is taken to be 0."""
        return self.loss == "kto"

    def loss_of(self, answers: Answers, totals: Totals) -> "Tensor":
        """The mean loss of the answers of the global batch (equation 7 of the paper)."""
        desirable, undesirable = self.rewards(answers)
        reached = self.beta * totals.kl
        # 1 - sigmoid(x) is sigmoid(-x), without cancellation.
        gains = self.desirable_weight * (reached - desirable).sigmoid()
        losses = self.undesirable_weight * (undesirable - reached).sigmoid()
        return (gains.sum() + losses.sum()) / (totals.chosen + totals.rejected)

    def rewards(self, answers: Answers) -> "tuple[Tensor, Tensor]":
        """beta times the log-ratio of the model to the reference (r_theta in the paper, times beta)."""
        return self.beta * (answers.chosen - answers.reference_chosen), self.beta * (answers.rejected - answers.reference_rejected)
