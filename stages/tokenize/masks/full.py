"""Supervises every token of the row, as in pretraining."""

from typing import ClassVar, Literal

from engine.core.part import Part
from stages.rows.turns import Rendered


class Full(Part):
    """Prompt and completion are both supervised."""

    kind: Literal["full"] = "full"
    everything: ClassVar[bool] = True
    needs_bos: ClassVar[bool] = False

    def choose(self, rendered: Rendered, bos: str | None, eos: str) -> Rendered:
        """RENDERED with every turn marked as supervised."""
        return rendered._replace(turns=tuple(turn._replace(learned=True) for turn in rendered.turns))
