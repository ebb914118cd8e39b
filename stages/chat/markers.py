"""Texts that mark whose turn it is: the method published for chats of Bloom-560m.

An end-of-sequence token is put before each instruction marker and a begin-of-sequence token behind each response marker; an answer is
what follows such a begin, up to and including the end-of-sequence token. The published code compares ids token by token; here the text
is cut at the markers, which gives the same ids and labels, and no token of an instruction can pass for a marker.
"""

import re

from engine.core.part import Part, recipe
from stages.rows.turns import Rendered, Turn


class Markers(Part):
    """The texts before instructions and responses."""

    instruction: str = recipe("\n\n### Human:", "The text before each instruction.", min_length=1)
    response: str = recipe("\n\n### Assistant:", "The text before each response.", min_length=1)

    def cut(self, rendered: Rendered, bos: str | None, eos: str) -> Rendered:
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

    def asked(self, rendered: Rendered, bos: str | None, eos: str) -> Rendered:
        """RENDERED cut as in the training, its last answer still to be given; as it is where no response marker stands before that."""
        last = rendered.turns[-1]
        found = self.cut(rendered._replace(turns=(*rendered.turns[:-1], last._replace(answer="")), after=""), bos, eos)
        if found.after or not found.turns:
            return rendered
        # What stands between the marker and the answer, such as a space, is asked too.
        marked = found.turns[-1]
        return Rendered((*found.turns[:-1], Turn(marked.before + marked.answer, last.answer.removesuffix(eos), None)))
