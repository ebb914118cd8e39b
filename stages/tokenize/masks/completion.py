"""Supervises the completion and its end token, not the prompt; of a conversation, the last answer."""

from typing import ClassVar, Literal

from engine.core.part import Part
from stages.rows.turns import Rendered


class Completion(Part):
    """Only the completion and its end token are supervised; of a conversation, only the last answer."""

    kind: Literal["completion"] = "completion"
    everything: ClassVar[bool] = False
    needs_bos: ClassVar[bool] = False

    def choose(self, rendered: Rendered, bos: str | None, eos: str) -> Rendered:
        """RENDERED with its supervised turns marked."""
        last = len(rendered.turns) - 1
        turns = tuple(turn if number == last else turn._replace(learned=False) for number, turn in enumerate(rendered.turns))
        return rendered._replace(turns=turns) if last else rendered
