"""Supervise what stands between markers: the method published for chats of Bloom-560m.

An end-of-sequence token is put before each instruction marker and a begin-of-sequence token behind each response marker; learned is
what follows such a begin, up to and including the end-of-sequence token. The published code compares ids token by token; here the text
is cut at the markers, which gives the same ids and labels, and no token of an instruction can pass for a marker.
"""

import re
from typing import ClassVar, Literal

from engine.part import Part, recipe
from stages.common.turns import Rendered, Turn


class Delimited(Part):
    """What follows each response marker is learned, up to the next instruction marker, and one end-of-sequence token."""

    kind: Literal["delimited"] = "delimited"
    instruction: str = recipe("\n\n### Human:", "The text before each instruction.", min_length=1)
    response: str = recipe("\n\n### Assistant:", "The text before each response.", min_length=1)
    everything: ClassVar[bool] = False
    needs_bos: ClassVar[bool] = True

    def choose(self, rendered: Rendered, bos: str | None, eos: str) -> Rendered:
        """The whole text of RENDERED, cut into turns at the markers."""
        text = "".join(turn.before + turn.answer for turn in rendered.turns) + rendered.after
        turns: list[Turn] = []
        before = ""
        for part in re.split(f"(?={re.escape(self.instruction)})", text):
            asked, found, answer = part.partition(self.response)
            if found:
                turns.append(Turn(f"{before}{asked}{found}{bos}", answer.removesuffix(eos), None))
                before = ""
            elif part:
                before += part.removesuffix(eos) + eos
        return Rendered(tuple(turns), before)
