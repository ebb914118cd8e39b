"""Knowledge distillation (Hinton et al., 2015, arXiv:1503.02531): a student learns what a teacher predicts, not only what is written.

The divergence is KL(teacher || student) over k + 1 classes: the teacher's `top_k` likeliest tokens, and all other tokens as one. A
student learns how much probability the others have together, not which. NeMo-Aligner describes the same classes for its top-k logits
(`use_k_add_1_logits`); axolotl renormalises over the k tokens (`kd_normalize_topk`), which leaves the others without a limit. With
`top_k` of the whole vocabulary it is the divergence of both whole distributions.

The temperature divides the logarithms of both sides over these classes, which are then normalised; the divergence is multiplied by its
square, so that gradients keep their size (Hinton et al., section 2).
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from engine.core.part import Name, Part, recipe

if TYPE_CHECKING:
    from torch import Tensor

MEASURES = ("kl", "cross_entropy", "agreement")
"""What is measured of supervised tokens, as means over them: the divergence from the teacher at temperature 1 and the cross entropy (nats),
and the share whose likeliest token is the teacher's."""


@dataclass(frozen=True)
class Taught:
    """What the teacher predicts at several positions, as in stages.tokens.top_logps."""

    ids: "Tensor"
    """The likeliest tokens, the first one first, int64 [positions, k]."""
    logps: "Tensor"
    """Their log-probabilities, float32 [positions, k]."""
    rest: "Tensor"
    """The logarithm of the probability of all other tokens together, float32 [positions]."""


class Distill(Part):
    """Cross entropy of the supervised tokens, mixed with the divergence of the model's predictions from those of a larger model."""

    kind: Literal["distill"] = "distill"
    teacher: Name = recipe(
        description="The experiment whose model teaches, trained or, without a training, as it is; it has the student's vocabulary."
    )
    top_k: int = recipe(64, "Number of the teacher's likeliest tokens that are kept at each supervised token: 6 bytes each on disk.", gt=0)
    temperature: float = recipe(1.0, "Temperature of both distributions: higher values give unlikely tokens more weight.", gt=0)
    alpha: float = recipe(
        0.5, "Weight of the divergence (`kd_ratio` in NeMo AutoModel); the cross entropy has the weight 1 - alpha.", ge=0, le=1
    )
    on_pairs: ClassVar[bool] = False
    on_judged: ClassVar[bool] = False
    needs_reference: ClassVar[bool] = False
    estimates_kl: ClassVar[bool] = False

    def loss_of(self, logits: "Tensor", labels: "Tensor", taught: Taught, tokens: int) -> "tuple[Tensor, Tensor]":
        """The parts of the loss and of MEASURES of several positions of a global batch with this number of supervised TOKENS.

        LOGITS are float32 [positions, vocabulary], LABELS int64 [positions]. Parts sum to the loss of the batch, however it is divided.
        """
        import torch
        from torch.nn.functional import cross_entropy

        with torch.set_grad_enabled(torch.is_grad_enabled() and self.alpha < 1):
            entropy = cross_entropy(logits, labels, reduction="sum") / tokens
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.alpha > 0):
            ours, theirs = _classes(logits, taught)
            divergence = _divergence(ours, theirs, self.temperature) / tokens
        weighted = ((1 - self.alpha, entropy), (self.alpha * self.temperature**2, divergence))
        loss = torch.stack([weight * term for weight, term in weighted if weight]).sum()
        with torch.no_grad():
            alike = (logits.argmax(1) == taught.ids[:, 0]).sum() / tokens
            measured = torch.stack([_divergence(ours, theirs, 1.0) / tokens, entropy, alike])
        return loss, measured


def _classes(logits: "Tensor", taught: Taught) -> "tuple[Tensor, Tensor]":
    """Logarithms of the student's and the teacher's probabilities of the classes, up to a constant, float32 [positions, classes]."""
    import torch

    kept = logits.gather(1, taught.ids)
    if taught.ids.shape[1] == logits.shape[1]:
        return kept, taught.logps
    # Not as 1 less the sum of the others, whose digits would cancel where the teacher's tokens have almost all of the probability.
    others = logits.scatter(1, taught.ids, -torch.inf).logsumexp(1, keepdim=True)
    return torch.cat([kept, others], 1), torch.cat([taught.logps, taught.rest[:, None]], 1)


def _divergence(ours: "Tensor", theirs: "Tensor", temperature: float) -> "Tensor":
    """KL(THEIRS || OURS) at a TEMPERATURE in nats, summed over positions."""
    from torch.nn.functional import kl_div, log_softmax

    given, wanted = (log_softmax(logs / temperature, 1) for logs in (ours, theirs))
    return kl_div(given, wanted, reduction="sum", log_target=True)
