"""The interface of objectives on pairs: a loss of the log-probabilities of chosen and rejected answers."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from engine.core.part import Part

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Answers:
    """The answers of several pairs; all tensors are float32 [pairs].

    Log-probabilities are in nats, summed over the tokens of an answer with its end token, given the prompt.
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
    """Sizes of a GLOBAL batch, by which the parts of its loss are divided."""

    pairs: int
    chosen_tokens: int


class PairObjective(Part):
    """An objective on pairs of answers."""

    on_pairs: ClassVar[bool] = True
    needs_reference: ClassVar[bool] = False
    """Whether it compares the model with a reference model."""

    def loss_of(self, answers: Answers, totals: Totals) -> "Tensor":
        """This part of the loss of a global batch: summed over all parts, however it is divided, the loss is the same."""
        raise AssertionError(f"{type(self).__name__} has no loss")

    def rewards(self, answers: Answers) -> "tuple[Tensor, Tensor]":
        """The implicit rewards of the chosen and of the rejected answers, float32 [pairs] each."""
        raise AssertionError(f"{type(self).__name__} has no rewards")
