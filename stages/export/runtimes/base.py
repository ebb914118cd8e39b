"""What the rules ask of a runtime."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

TOP = 10
"""Number of first tokens whose probabilities are compared."""


@dataclass(frozen=True)
class Said:
    """What a model said: the ids of new tokens, without the end token, and whether it stopped by itself."""

    ids: tuple[int, ...]
    stopped: bool


@dataclass(frozen=True)
class Chat:
    """A conversation as a client sends it."""

    messages: Sequence[Mapping[str, Any]]
    tools: Sequence[Mapping[str, Any]] = ()


class Runtime(Protocol):
    """An export in the program that runs it."""

    name: str
    """The program, for messages."""

    @property
    def template(self) -> str | None:
        """The chat template that the export carries; None if it carries none."""

    @property
    def positions(self) -> Mapping[str, Any]:
        """Kind, factor and base frequency of the rotary positions, as far as the export says (see the rule)."""

    @property
    def output_layer(self) -> str | None:
        """Why the matrix of the output layer is not the trained model's; None if it may be."""

    def read_text(self, text: str) -> list[int]:
        """The token ids that the program makes of TEXT, with those that it puts around every text."""

    def read_chat(self, chat: Chat) -> list[int]:
        """The token ids that the program makes of CHAT with the export's own template, up to where the answer begins."""

    def answer(self, prompt: Sequence[int], max_new_tokens: int) -> Said:
        """The greedy answer after PROMPT, ended by the end tokens that the export declares."""

    def next_tokens(self, prompt: Sequence[int]) -> dict[int, float]:
        """The log-probabilities of the next token after PROMPT, by id; at least the `MOST` largest."""

    def stops_at(self, token: int) -> bool:
        """Whether TOKEN ends an answer."""


MOST = 100
"""Number of largest log-probabilities that a runtime must return: some of the reference's largest are not among an export's."""
