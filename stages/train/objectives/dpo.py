"""Direct preference optimization (Rafailov et al., 2023, arXiv:2305.18290) and its variants."""

from typing import TYPE_CHECKING, ClassVar, Literal, Self

from pydantic import model_validator
from pydantic_core import PydanticCustomError

from engine.core.part import recipe
from stages.train.objectives.base import Answers, PairObjective, Totals

if TYPE_CHECKING:
    from torch import Tensor


class Dpo(PairObjective):
    """Raises the log-probability of chosen over rejected answers, relative to a reference model: the one that the training starts from."""

    kind: Literal["dpo"] = "dpo"
    beta: float = recipe(0.1, "Strength of the tie to the reference model: higher values change the model less.", gt=0)
    loss: Literal["sigmoid", "hinge", "ipo", "robust"] = recipe(
        "sigmoid",
        "Loss of a pair: `sigmoid` (DPO), `hinge` (SLiC, Zhao et al., 2023, arXiv:2305.10425), `ipo` (squared distance of the margin per "
        "token to 1 / (2 beta), Azar et al., 2023, arXiv:2310.12036), `robust` (without the bias of exchanged labels, of which there are "
        "label_smoothing; Chowdhury et al., 2024, arXiv:2403.00409).",
    )
    label_smoothing: float = recipe(
        0.0, "Assumed share of pairs with exchanged labels, for `sigmoid` (conservative DPO) and `robust`.", ge=0, lt=0.5
    )
    needs_reference: ClassVar[bool] = True
    remedy: ClassVar[str] = "raise training.objective.beta"

    @model_validator(mode="after")
    def _smoothing_is_used(self) -> Self:
        if self.label_smoothing and self.loss not in ("sigmoid", "robust"):
            message = "label_smoothing is only for the losses sigmoid and robust, got {kind}: remove it"
            raise PydanticCustomError("smoothing", message, {"kind": self.loss, "at": ("label_smoothing",)})
        if self.loss == "robust" and not self.label_smoothing:
            message = "loss robust without exchanged labels is loss sigmoid: set label_smoothing"
            raise PydanticCustomError("smoothing", message, {"at": ("label_smoothing",)})
        return self

    def loss_of(self, answers: Answers, totals: Totals) -> "Tensor":
        """The mean loss of the pairs of the global batch."""
        from torch.nn.functional import logsigmoid, relu

        chosen, rejected = answers.chosen - answers.reference_chosen, answers.rejected - answers.reference_rejected
        margin = self.beta * (chosen - rejected)
        match self.loss:
            case "sigmoid":
                each = -(1 - self.label_smoothing) * logsigmoid(margin) - self.label_smoothing * logsigmoid(-margin)
            case "robust":
                clean, exchanged = (1 - self.label_smoothing) * logsigmoid(margin), self.label_smoothing * logsigmoid(-margin)
                each = (exchanged - clean) / (1 - 2 * self.label_smoothing)
            case "hinge":
                each = relu(1 - margin)
            case "ipo":
                # Per token, as in the results of the paper (said by its authors to those of TRL), so that long answers weigh no more.
                each = (chosen / answers.chosen_tokens - rejected / answers.rejected_tokens - 1 / (2 * self.beta)) ** 2
        return each.sum() / totals.pairs

    def rewards(self, answers: Answers) -> "tuple[Tensor, Tensor]":
        """beta times the log-ratio of the model to the reference (Rafailov et al., equation 5, without the prompt's constant)."""
        return self.beta * (answers.chosen - answers.reference_chosen), self.beta * (answers.rejected - answers.reference_rejected)
