"""Turns delimited by marker texts, as published for chat fine-tuning of Bloom-560m.

An EOS token is inserted before each instruction marker and a BOS token after each response marker; an answer runs from that BOS token
up to and including the next EOS token. The published code matches token ids; here the text is cut at the markers, which yields the same
ids and labels, and no token of an instruction can be mistaken for a marker.
"""

import re

from engine.core.part import Part, recipe
from stages.rows.turns import Rendered, Turn


class Markers(Part):
    """The marker texts before instructions and responses."""

    instruction: str = recipe("\n\n### Human:", "Text before each instruction.", min_length=1)
    response: str = recipe("\n\n### Assistant:", "Text before each response.", min_length=1)

    def cut(self, rendered: Rendered, bos: str | None, eos: str) -> Rendered:
        """The text of RENDERED cut into turns at the markers, with BOS and EOS as token texts."""
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
        """RENDERED cut as in training, up to its last answer; unchanged if no response marker precedes that answer."""
        last = rendered.turns[-1]
        found = self.cut(rendered._replace(turns=(*rendered.turns[:-1], last._replace(answer="")), after=""), bos, eos)
        if found.after or not found.turns:
            return rendered
        # Text between the marker and the answer, such as a space, belongs to the prompt.
        marked = found.turns[-1]
        return Rendered((*found.turns[:-1], Turn(marked.before + marked.answer, last.answer.removesuffix(eos), None)))
