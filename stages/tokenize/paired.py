"""Converts pairs of answers to arrays: two rows of a token file each, the chosen answer first, with the same prompt tokens.

Whatever happens to one answer happens to the other: a pair is left out as a whole, and the same tokens are cut from both prompts.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from engine.core.errors import UserError
from stages.rows.rows import Row
from stages.rows.turns import Rendered
from stages.tokenize.batch import Batch
from stages.tokenize.lengths import cut_prompt, without_remainder
from stages.tokenize.tokenization import Part, Tokenization
from stages.tokens.encoder import Array
from stages.tokens.encoding import ANSWER

_OTHER = "the other answer of its pair is left out"
_EQUAL = "both answers of the pair are equal as the format writes them"


class PairTokenization(Tokenization):
    """Converts the pairs of one split to arrays and counts their answers as rows."""

    def rendered(self, rows: Sequence[Row]) -> list[tuple[Row, Rendered]]:
        """The rendered text of both answers of each of ROWS, chosen before rejected; raises UserError for a row that is not a pair."""
        return [side for row in rows for side in self._sides(row)]

    def _sides(self, row: Row) -> list[tuple[Row, Rendered]]:
        if row.rejected is None:
            hint = 'give the task pairs: layout = "preference", with columns chosen and rejected; or train with objective = "supervised"'
            raise UserError(f"row {row.id} has no rejected answer, and the objective learns from pairs of answers", row.where, hint)
        sides = [side for one in (row, row.with_rejected()) for side in super(PairTokenization, self).rendered([one])]
        if len(sides) < 2:
            self.counts.leave_out(_OTHER, len(sides), 0)
            return []
        if _prompt(sides[0][1]) != _prompt(sides[1][1]):
            what = f"the format renders the prompt of row {row.id} differently before its chosen and its rejected answer"
            raise UserError(
                what, row.where, "the two answers could not be compared; use a format whose prompt does not depend on the answer"
            )
        if row.rejected_ended and sides[0][1] == sides[1][1]:
            # Formats may cut white space off: such a pair teaches nothing, whatever the objective.
            self.counts.leave_out(_EQUAL, len(sides), 0)
            return []
        return sides

    def marks(self, rows: int) -> dict[str, Array]:
        """For the ROWS rows yielded last, under `chosen` 1 for chosen and 0 for rejected answers, uint8 [rows]."""
        self.counts.pairs = self.counts.rows_out // 2
        first = self.counts.rows_out - rows
        return {"chosen": (np.arange(first, first + rows) % 2 == 0).astype(np.uint8)}

    def _keep(self, batch: Batch) -> Array:
        """The rows that are kept, before length policies, bool [rows]: both answers of a pair or none."""
        keep = super()._keep(batch)
        both = np.repeat(keep.reshape(-1, 2).all(1), 2)
        lost = keep & ~both
        self.counts.leave_out(_OTHER, int(lost.sum()), int(batch.lengths[lost].sum()))
        prompts = _prompts(batch)
        assert all(np.array_equal(one, other) for one, other in zip(prompts[::2], prompts[1::2], strict=True)), "one prompt, two encodings"
        return both

    def _too_long(self, batch: Batch, lengths: Array) -> Array:
        return np.repeat(lengths.reshape(-1, 2).max(1) > self.parameters.max_length, 2)

    def _cut(self, batch: Batch, number: int) -> Iterator[Part]:
        """The arrays of an answer in a pair that is too long, by policy: both lose the same tokens of the prompt."""
        sides = [batch.row(side) for side in (number - number % 2, number - number % 2 + 1)]
        row, tokens, longest = batch.rows[number], sides[number % 2], max(map(len, sides))
        if self.parameters.over_length != "truncate_prompt_left":
            self.counts.leave_out(self._dropped(row, longest, self.parameters.max_length, "max_length"), 1, len(tokens))
            return
        excess = max(len(without_remainder(side)) for side in sides) - self.parameters.max_length
        whole = without_remainder(tokens)
        made = cut_prompt(whole, len(whole) - max(excess, 0), self._kept(tokens))
        if isinstance(made, str):
            self.counts.leave_out("an answer of the pair longer than max_length", 1, len(tokens))
            return
        self.counts.truncated += 1
        self.counts.truncated_tokens += len(tokens) - len(made)
        self._handed_on.append(row.part_of)
        yield self._checked(made.ids, made.supervised, made.kinds, np.array([len(made)]), None, int(not row.ended))


def _prompt(rendered: Rendered) -> str:
    """All text before the last answer."""
    *earlier, last = rendered.turns
    return "".join(turn.before + turn.answer + (turn.end or "") for turn in earlier) + last.before


def _prompts(batch: Batch) -> list[Array]:
    """The tokens before the last answer of each row."""
    spans = np.cumsum(np.append(0, batch.piece_lengths))
    answers = np.flatnonzero(np.array(batch.pieces.kinds) == ANSWER)
    last = answers[np.append(batch.piece_rows[answers][1:] != batch.piece_rows[answers][:-1], True)]
    begins = spans[np.searchsorted(batch.piece_rows, np.arange(len(batch.rows)))]
    return [batch.ids[begin : spans[piece]] for begin, piece in zip(begins, last, strict=True)]
