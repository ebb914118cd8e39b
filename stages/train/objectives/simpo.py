"""Simple preference optimization (Meng et al., 2024, arXiv:2405.14734): the log-probability per token is the reward."""

from typing import TYPE_CHECKING, ClassVar, Literal

from engine.core.part import recipe
from stages.train.objectives.base import Answers, PairObjective, Totals

if TYPE_CHECKING:
    from torch import Tensor


class Simpo(PairObjective):
    """Raises the log-probability per token of chosen over rejected answers by a margin; without a reference model."""

    kind: Literal["simpo"] = "simpo"
    beta: float = recipe(2.0, "Scale of the rewards.", gt=0)
    margin: float = recipe(1.0, "Wanted difference of the rewards of both answers (gamma in the paper).", ge=0)
    remedy: ClassVar[str] = "decrease training.objective.margin"

    def loss_of(self, answers: Answers, totals: Totals) -> "Tensor":
        """The mean loss of the pairs of the global batch (equation 6)."""
        from torch.nn.functional import logsigmoid

        chosen, rejected = self.rewards(answers)
        return -logsigmoid(chosen - rejected - self.margin).sum() / totals.pairs

    def rewards(self, answers: Answers) -> "tuple[Tensor, Tensor]":
        """beta times the log-probability per token (equation 4)."""
        return self.beta * answers.chosen / answers.chosen_tokens, self.beta * answers.rejected / answers.rejected_tokens
