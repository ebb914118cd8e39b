"""Supervise what stands between markers: the method published for chats of Bloom-560m (see stages.chat.markers)."""

from typing import ClassVar, Literal

from stages.chat.markers import Markers
from stages.rows.turns import Rendered


class Delimited(Markers):
    """What follows each response marker is learned, up to the next instruction marker, and one end-of-sequence token."""

    kind: Literal["delimited"] = "delimited"
    everything: ClassVar[bool] = False
    needs_bos: ClassVar[bool] = True

    def choose(self, rendered: Rendered, bos: str | None, eos: str) -> Rendered:
        """The whole text of RENDERED, cut into turns at the markers."""
        return self.cut(rendered, bos, eos)
