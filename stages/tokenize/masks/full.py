"""Supervise every token of the row: what pretraining does."""

from typing import ClassVar, Literal

from engine.core.part import Part
from stages.rows.turns import Rendered


class Full(Part):
    """Prompt and completion are both learned."""

    kind: Literal["full"] = "full"
    everything: ClassVar[bool] = True
    needs_bos: ClassVar[bool] = False

    def choose(self, rendered: Rendered, bos: str | None, eos: str) -> Rendered:
        """RENDERED with every turn marked as learned."""
        return rendered._replace(turns=tuple(turn._replace(learned=True) for turn in rendered.turns))
