"""A prediction: a model's answer to one row, with what is known of how it was generated."""

from dataclasses import dataclass
from typing import Any, Literal

FinishReason = Literal["stop", "length"]
"""`stop`: the model generated an end token; `length`: the answer reached the token limit."""


@dataclass(frozen=True)
class Prediction:
    """A model's answer to a prompt, the reference if there is one, and why the answer ended."""

    task: str
    id: str
    prompt: str
    reference: str | None
    answer: str | None
    """None if only the likelihood was measured."""
    finish_reason: FinishReason | None
    tokens: int
    """Length of the answer in tokens, without the end token."""
    loss: float | None = None
    """Negative log-likelihood of the reference, in nats, summed over its tokens; None if not measured."""
    loss_tokens: int = 0
    """Number of tokens in `loss`, including the end token."""
    references: tuple[str, ...] = ()
    """All references, if the row has several; the first is `reference`."""
    reasoning: str | None = None
    """The reasoning before the answer, with its markup, if the template renders reasoning."""
    calls: list[dict[str, Any]] | None = None
    """Tool calls of the answer, with `name` and `arguments`; None if the row has neither tools nor calls."""
    reference_calls: list[dict[str, Any]] | None = None

    @property
    def ended(self) -> bool:
        """Whether the model generated an end token."""
        return self.finish_reason == "stop"
