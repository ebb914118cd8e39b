"""Supervises the assistant's turns in a conversation, all or the last one, except messages with `train: false`."""

from typing import ClassVar, Literal

from engine.core.part import Part, recipe
from stages.rows.turns import Rendered


class Assistant(Part):
    """The assistant's turns are supervised, each with its end-of-turn token, except messages with `train: false`."""

    kind: Literal["assistant"] = "assistant"
    turns: Literal["all", "last"] = recipe("all", "Supervise every assistant turn, or only the last.")
    unroll: bool | Literal["auto"] = recipe(
        False,
        "Unroll a conversation into one row per supervised turn, rendered as the model sees it at that point: always, never, or `auto`: "
        "if the template renders earlier turns differently once later ones follow.",
    )
    weight: Literal["turn", "conversation"] = recipe(
        "turn", "The unit of an epoch: each row of an unrolled conversation, or the conversation (with its rows in rotation)."
    )
    reasoning: Literal["learn", "mask", "strip"] = recipe(
        "learn", "Reasoning of supervised turns: supervised, present but not supervised, or removed (counted)."
    )
    everything: ClassVar[bool] = False
    needs_bos: ClassVar[bool] = False

    def choose(self, rendered: Rendered, bos: str | None, eos: str) -> Rendered:
        """RENDERED with its supervised turns marked."""
        if self.turns == "all":
            return rendered
        last = len(rendered.turns) - 1
        return rendered._replace(
            turns=tuple(turn if number == last else turn._replace(learned=False) for number, turn in enumerate(rendered.turns))
        )
