"""Supervise what the assistant says in a chat: all its turns or the last one, save for messages with `train: false`."""

from typing import ClassVar, Literal

from engine.core.part import Part, recipe
from stages.rows.turns import Rendered


class Assistant(Part):
    """The assistant's turns are learned, each with its end-of-turn token, save for messages that say `train: false`."""

    kind: Literal["assistant"] = "assistant"
    turns: Literal["all", "last"] = recipe("all", "Every turn of the assistant, or only the last.")
    unroll: bool | Literal["auto"] = recipe(
        False,
        "A conversation becomes one row for each learned turn, rendered as the model sees it at that point: always, never, or `auto`: "
        "where the template writes earlier turns otherwise once later ones follow.",
    )
    weight: Literal["turn", "conversation"] = recipe(
        "turn", "What counts once in an epoch: each row of an unrolled conversation, or the conversation (one of its rows, in turn)."
    )
    reasoning: Literal["learn", "mask", "strip"] = recipe(
        "learn", "The reasoning of a learned turn is learned, stands there without being learned, or is left out (counted)."
    )
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
