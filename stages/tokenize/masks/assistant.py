"""Supervise what the assistant says in a chat: all its turns or the last one, save for messages with `train: false`."""

from typing import ClassVar, Literal

from engine.part import Part, recipe
from stages.common.turns import Rendered


class Assistant(Part):
    """The assistant's turns are learned, each with its end-of-turn token, save for messages that say `train: false`."""

    kind: Literal["assistant"] = "assistant"
    turns: Literal["all", "last"] = recipe("all", "Every turn of the assistant, or only the last.")
    everything: ClassVar[bool] = False
    needs_bos: ClassVar[bool] = False

    def choose(self, rendered: Rendered, bos: str | None, eos: str) -> Rendered:
        """RENDERED with the turns marked that are learned."""
        if self.turns == "all":
            return rendered
        last = len(rendered.turns) - 1
        return rendered._replace(
            turns=tuple(turn if number == last else turn._replace(learned=False) for number, turn in enumerate(rendered.turns))
        )
