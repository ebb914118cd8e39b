"""Prompts for generation: rendered and encoded as in training, up to where the last answer begins."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from engine.core.errors import UserError
from stages.chat.markers import Markers
from stages.chat.taught import Taught
from stages.chat.templates import Rewritten
from stages.chat.unrendered import refusal, unrendered
from stages.rows.control_tokens import Breaker, ControlTokens
from stages.rows.messages import Call
from stages.rows.rows import Row, without_reasoning
from stages.rows.turns import Rendered
from stages.tokens.encoder import Encoder
from stages.tokens.encoding import Boundary, Pieces, encode
from stages.tokens.ends import answer_ends

if TYPE_CHECKING:
    from stages.chat.formats import Format


@dataclass(frozen=True)
class Policies:
    """How training treated messages that the template renders incompletely, and control tokens in texts."""

    unrendered: Literal["refuse", "drop", "allow"] = "refuse"
    control_tokens_in_text: ControlTokens = "text"
    strip_reasoning: bool = False


class LeftOut(Exception):
    """The row is excluded; the message is the reason."""


class Questions:
    """Turns rows into the token ids of prompts."""

    def __init__(
        self,
        form: "Format",
        encoder: Encoder,
        template: Path | None = None,
        boundary: Boundary = "apart",
        encoder_decoder: bool = False,
        markers: Markers | None = None,
        policies: Policies = Policies(),
    ) -> None:
        self._encoder, self._boundary, self._encoder_decoder, self._markers = encoder, boundary, encoder_decoder, markers
        self._renderer = form.renderer(encoder, template)
        self._form = form.kind
        self._front = self._renderer.starts and bool(encoder.prefix)
        self._policies = policies
        self._breaker = Breaker((*encoder.special, *self._renderer.controls))

    def ends(self, *folders: Path) -> tuple[int, ...]:
        """Ids of the end tokens for the model in FOLDERS[0] with the adapters in the other folders (see stages.tokens.ends)."""
        return answer_ends(folders, self._encoder, self._renderer.end)

    @property
    def taught(self) -> Taught:
        """What the format adds to the tokenizer."""
        return Taught.by(self._renderer)

    def ids(self, rows: Sequence[Row]) -> list[list[int]]:
        """Token ids of each row's prompt; raises UserError, located at the row, if it cannot be rendered."""
        pieces = Pieces()
        for row in rows:
            rendered = self._rendered(row)
            if self._encoder_decoder:
                pieces.add_source(rendered, self._front)
            else:
                pieces.add_question(rendered, self._encoder, self._front)
        return self._encoded(pieces, [*pieces.starts, len(pieces.texts)])

    def control_tokens(self, row: Row) -> int:
        """Number of control tokens in the messages of ROW that are not the assistant's."""
        return len(self._breaker.found(row))

    def answer(self, row: Row) -> str:
        """The answer of ROW as the model writes it, without reasoning: its text, and its tool calls as the format renders them."""
        return self.split(self._rendered(row).turns[-1].answer)[1] if row.reference_calls else self.split(row.reference)[1]

    def split(self, answer: str) -> tuple[str, str]:
        """The reasoning of ANSWER, with its markup, and the text after it."""
        return self._renderer.split(answer)

    def calls(self, answer: str) -> list[Call]:
        """Tool calls in ANSWER."""
        return self._renderer.calls(answer)

    def references(self, rows: Sequence[Row]) -> list[list[int]]:
        """Token ids of each row's answer as supervised in training: its text and one end token."""
        pieces, edges = Pieces(), [0]
        for row in rows:
            rendered = self._rendered(row)._replace(after="")
            add = pieces.add_pair if self._encoder_decoder else pieces.add_row
            add(rendered, self._encoder, self._front)
            # The last two pieces are the answer and its end.
            edges += [len(pieces.texts) - 2, len(pieces.texts)]
        return self._encoded(pieces, edges)[1::2]

    def _rendered(self, row: Row) -> Rendered:
        """The turns of ROW as in training; raises LeftOut or UserError where the spec's policies drop or refuse the row."""
        if self._policies.strip_reasoning:
            row, _ = without_reasoning(row)
        if tokens := self._breaker.found(row):
            match self._policies.control_tokens_in_text:
                case "refuse":
                    hint = 'set tokenization.control_tokens_in_text = "text" to encode it as text, "drop", or "control"'
                    raise UserError(f"the text of row {row.id} contains the control token {tokens[0]!r}", row.where, hint)
                case "drop":
                    raise LeftOut("control tokens in the text")
                case "text":
                    row = self._breaker.broken(row)
        found = self._whole(row)
        # Reasoning is never part of a prompt: templates drop that of earlier answers on purpose.
        asked = found._replace(turns=tuple(turn._replace(learned=False) for turn in found.turns))
        lacking = unrendered(row, asked, [False] * len(found.turns), self._whole) if self._policies.unrendered != "allow" else []
        if lacking and self._policies.unrendered == "drop":
            raise LeftOut(f"not rendered: {', '.join(lacking)}")
        if lacking:
            raise UserError(*refusal(row, lacking, self._form, False))
        return self._markers.asked(found, self._encoder.bos, self._encoder.eos) if self._markers else found

    def _whole(self, row: Row) -> Rendered:
        """The turns of ROW; only the last one if the template renders earlier answers differently."""
        try:
            return self._renderer.render(row)
        except Rewritten:
            last = max(number for number, message in enumerate(row.conversation()) if message["role"] == "assistant")
            return self._renderer.at(row, last)

    def _encoded(self, pieces: Pieces, edges: Sequence[int]) -> list[list[int]]:
        """Token ids of the pieces between consecutive EDGES."""
        ids, lengths = encode(pieces, self._encoder, self._boundary)
        begins = [0, *lengths.cumsum().tolist()]
        return [ids[begins[first] : begins[last]].tolist() for first, last in pairwise(edges)]
