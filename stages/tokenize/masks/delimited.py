"""Supervises the text between markers, as published for chat fine-tuning of Bloom-560m (see stages.chat.markers)."""

from typing import ClassVar, Literal

from stages.chat.markers import Markers
from stages.rows.turns import Rendered


class Delimited(Markers):
    """The text after each response marker, up to the next instruction marker, is supervised, with one end-of-sequence token."""

    kind: Literal["delimited"] = "delimited"
    everything: ClassVar[bool] = False
    needs_bos: ClassVar[bool] = True

    def choose(self, rendered: Rendered, bos: str | None, eos: str) -> Rendered:
        """The text of RENDERED cut into turns at the markers."""
        return self.cut(rendered, bos, eos)
