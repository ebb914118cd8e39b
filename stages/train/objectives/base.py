"""The interface of objectives on pairs: a loss of the log-probabilities of chosen and rejected answers."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from engine.core.part import Part

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Answers:
    """Several answers; tensors of chosen ones are float32 [chosen], of rejected ones float32 [rejected].

    Of pairs, chosen and rejected answers with the same number answer the same prompt. Answers that were judged alone are chosen if they
    are desirable, else rejected. Log-probabilities are in nats, summed over the tokens of an answer with its end token, given the prompt.
    """

    chosen: "Tensor"
    rejected: "Tensor"
    chosen_tokens: "Tensor"
    rejected_tokens: "Tensor"
    reference_chosen: "Tensor"
    """Under the reference model; 0 if the objective has none."""
    reference_rejected: "Tensor"


@dataclass(frozen=True)
class Totals:
    """What the parts of the loss of a GLOBAL batch share: its sizes, by which they are divided, and the divergence."""

    chosen: int
    """Chosen answers: as many as pairs, if answers are in pairs."""
    rejected: int
    chosen_tokens: int
    kl: float = 0.0
    """Estimate of the KL divergence of the model from the reference, in nats per answer, at least 0; 0 if the objective needs none."""

    @property
    def pairs(self) -> int:
        """The number of pairs."""
        assert self.chosen == self.rejected, "these answers are not in pairs"
        return self.chosen


class PairObjective(Part):
    """An objective on pairs of answers."""

    on_pairs: ClassVar[bool] = True
    on_judged: ClassVar[bool] = False
    """Whether it learns from answers that were judged alone, too."""
    needs_reference: ClassVar[bool] = False
    """Whether it compares the model with a reference model."""
    remedy: ClassVar[str] = ""
    """Which of its fields to change if a training unlearns the chosen answers, as in `raise training.objective.beta`."""

    @property
    def estimates_kl(self) -> bool:
        """Whether it needs the divergence of the model from the reference, which mismatched answers estimate."""
        return False

    def loss_of(self, answers: Answers, totals: Totals) -> "Tensor":
        """This part of the loss of a global batch: summed over all parts, however it is divided, the loss is the same."""
        raise AssertionError(f"{type(self).__name__} has no loss")

    def rewards(self, answers: Answers) -> "tuple[Tensor, Tensor]":
        """The implicit rewards of the chosen and of the rejected answers, float32 [pairs] each."""
        raise AssertionError(f"{type(self).__name__} has no rewards")
