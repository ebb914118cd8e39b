"""What a model is asked: the same rendering and encoding as in training, up to where the last answer begins."""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from stages.common.encoder import Encoder
from stages.common.encoding import Boundary, Pieces, encode
from stages.common.ends import answer_ends
from stages.common.markers import Markers
from stages.common.rows import Row
from stages.common.taught import Taught
from stages.common.turns import Rendered

if TYPE_CHECKING:
    from stages.common.formats import Format


class Questions:
    """Turns rows into the tokens that a model goes on from."""

    def __init__(
        self,
        form: "Format",
        encoder: Encoder,
        template: Path | None = None,
        boundary: Boundary = "apart",
        encoder_decoder: bool = False,
        markers: Markers | None = None,
    ) -> None:
        self._encoder, self._boundary, self._encoder_decoder, self._markers = encoder, boundary, encoder_decoder, markers
        self._renderer = form.renderer(encoder, template)
        self._front = self._renderer.starts and bool(encoder.prefix)

    def ends(self, *folders: Path) -> tuple[int, ...]:
        """The tokens that end an answer of the model in the first of FOLDERS with the adapters in the others (see stages.common.ends)."""
        return answer_ends(folders, self._encoder, self._renderer.end)

    @property
    def taught(self) -> Taught:
        """What the format adds to the tokenizer."""
        return Taught.by(self._renderer)

    def ids(self, rows: Sequence[Row]) -> list[list[int]]:
        """The token ids of each question; raises UserError, located at the row, where a row cannot be rendered."""
        pieces = Pieces()
        for row in rows:
            rendered = self._rendered(row)
            if self._encoder_decoder:
                pieces.add_source(rendered, self._front)
            else:
                pieces.add_question(rendered, self._encoder, self._front)
        return self._encoded(pieces, [*pieces.starts, len(pieces.texts)])

    def references(self, rows: Sequence[Row]) -> list[list[int]]:
        """The tokens of each answer that a training learns: the text and one end token."""
        pieces, edges = Pieces(), [0]
        for row in rows:
            rendered = self._rendered(row)._replace(after="")
            add = pieces.add_pair if self._encoder_decoder else pieces.add_row
            add(rendered, self._encoder, self._front)
            # The last two pieces are the answer and its end.
            edges += [len(pieces.texts) - 2, len(pieces.texts)]
        return self._encoded(pieces, edges)[1::2]

    def _rendered(self, row: Row) -> Rendered:
        """The turns of ROW, as the training cut them."""
        found = self._renderer.render(row)
        return self._markers.asked(found, self._encoder.bos, self._encoder.eos) if self._markers else found

    def _encoded(self, pieces: Pieces, edges: Sequence[int]) -> list[list[int]]:
        """The tokens of the pieces between each two EDGES."""
        ids, lengths = encode(pieces, self._encoder, self._boundary)
        begins = [0, *lengths.cumsum().tolist()]
        return [ids[begins[first] : begins[last]].tolist() for first, last in pairwise(edges)]
