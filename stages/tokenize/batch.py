"""A batch of rows as flat arrays, encoded together and checked with numpy."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from engine.core.errors import UserError
from stages.rows.rows import Row
from stages.rows.text import shorten
from stages.rows.turns import Rendered
from stages.tokenize import Parameters
from stages.tokenize.lengths import Tokenized
from stages.tokens.encoder import Array, Encoder
from stages.tokens.encoding import ANSWER, CONTEXT, END, Pieces, encode
from stages.tokens.ends import united


@dataclass(frozen=True)
class Batch:
    """Rows with concatenated tokens; arrays are per token, per piece or per row."""

    rows: Sequence[Row]
    pieces: Pieces
    ids: Array
    """Token ids, int32 [tokens]."""
    kinds: Array
    """Kind of each token (context, answer, end of turn), uint8 [tokens]."""
    supervised: Array
    """Supervision mask, uint8 [tokens]."""
    piece_lengths: Array
    piece_rows: Array
    """Row of each piece, int64 [pieces]."""

    @property
    def lengths(self) -> Array:
        """Tokens of each row, int64 [rows]."""
        return np.bincount(self.piece_rows, self.piece_lengths, len(self.rows)).astype(np.int64)

    @property
    def token_rows(self) -> Array:
        """The row of each token, int64 [tokens]."""
        return np.repeat(self.piece_rows, self.piece_lengths)

    def count(self, chosen: Array) -> Array:
        """Number of CHOSEN tokens in each row, int64 [rows]; CHOSEN is bool [tokens]."""
        return np.bincount(self.token_rows[chosen], minlength=len(self.rows))

    def row(self, number: int) -> Tokenized:
        """The tokens of one row."""
        chosen = np.flatnonzero(self.piece_rows == number)
        lengths = self.piece_lengths[chosen]
        begin = int(self.piece_lengths[: chosen[0]].sum())
        span = slice(begin, begin + int(lengths.sum()))
        piece_kinds = np.array(self.pieces.kinds, np.uint8)[chosen]
        # A turn includes its end token.
        turns = np.cumsum(np.append(0, piece_kinds[:-1] == END))
        source = int((self.kinds[span] == CONTEXT).sum())
        return Tokenized(self.ids[span], self.kinds[span], self.supervised[span], np.repeat(turns, lengths), source)


def encode_batch(rows: Sequence[Row], rendered: Sequence[Rendered], parameters: Parameters, encoder: Encoder, front: bool) -> Batch:
    """The tokens of ROWS with their supervision mask."""
    pieces = Pieces()
    add = pieces.add_pair if parameters.encoder_decoder else pieces.add_row
    for one in rendered:
        add(one, encoder, front)
    ids, lengths = encode(pieces, encoder, parameters.boundary)
    kinds = np.array(pieces.kinds, np.uint8)
    learned = np.array(pieces.learned, bool)
    if parameters.mask.everything:
        learned[:] = True
    else:
        # An empty answer would only teach the model to stop at once.
        ends = np.flatnonzero(kinds == END)
        learned[ends] &= lengths[ends - 1] > 0
    piece_rows = np.repeat(np.arange(len(rows)), np.diff(np.append(pieces.starts, len(kinds))))
    # An answer that was cut off has no end: the one that the format adds is not supervised.
    cut_off = [number for number, row in enumerate(rows) if not row.ended]
    for number in cut_off:
        learned[np.flatnonzero((piece_rows == number) & (kinds == END))[-1:]] = False
    return Batch(rows, pieces, ids, np.repeat(kinds, lengths), np.repeat(learned, lengths).astype(np.uint8), lengths, piece_rows)


def unfit(batch: Batch, encoder: Encoder, everything: bool) -> dict[str, Array]:
    """Rows to leave out whatever their length: for each reason, bool [rows]."""
    answers = (batch.kinds == ANSWER) & (batch.supervised == 1)
    # Supervised, they would teach the model to stop in the middle of an answer.
    inside = batch.count(answers & np.isin(batch.ids, _stops(batch, encoder))) > 0
    nothing = batch.count((batch.kinds != END) & (batch.supervised == 1) if everything else answers) == 0
    return {"end-of-sequence token inside the completion": inside, "nothing to learn but the end-of-sequence token": nothing & ~inside}


def _stops(batch: Batch, encoder: Encoder) -> Array:
    """Ids of end tokens: the tokenizer's and the template's; those in the model's files are not known here."""
    lasts = np.cumsum(batch.piece_lengths)[np.array(batch.pieces.kinds) == END] - 1
    return np.array(united(*np.unique(batch.ids[lasts]).tolist(), encoder.eos_id), np.int32)


def check_text(batch: Batch, encoder: Encoder) -> int:
    """Compare the decoded tokens with the text: the number of answers that differ; lossless tokenizers raise UserError at the first."""
    return _check_bytes(batch, encoder) if encoder.lossless else _check_answers(batch, encoder)


def _check_bytes(batch: Batch, encoder: Encoder) -> int:
    """Check that every byte of every text round-trips, as byte-level tokenizers guarantee."""
    table, begins = encoder.bytes_of
    is_text = np.repeat(np.array(batch.pieces.sources) == 0, batch.piece_lengths)
    found = _bytes(batch.ids[is_text], table, begins)
    expected = "".join(batch.pieces.texts).encode()
    if found != expected:
        raise _lost(batch, encoder)
    return 0


def _bytes(ids: Array, table: Array, begins: Array) -> bytes:
    """The bytes of IDS, concatenated: TABLE[begins[i]:begins[i + 1]] for each id i."""
    widths = begins[ids + 1] - begins[ids]
    offsets = np.repeat(begins[ids] - (np.cumsum(widths) - widths), widths)
    return bytes(table[offsets + np.arange(len(offsets))])


def _lost(batch: Batch, encoder: Encoder) -> UserError:
    """The error for the first row whose text does not round-trip."""
    spans = np.cumsum(np.append(0, batch.piece_lengths))
    for number in range(len(batch.rows)):
        chosen = np.flatnonzero((batch.piece_rows == number) & (np.array(batch.pieces.sources) == 0))
        for kinds, name in (((ANSWER,), "completion"), ((CONTEXT, ANSWER, END), "text")):
            parts = [piece for piece in chosen if batch.pieces.kinds[piece] in kinds]
            text = "".join(batch.pieces.texts[piece] for piece in parts)
            ids = [token for piece in parts for token in batch.ids[spans[piece] : spans[piece + 1]].tolist()]
            (decoded,) = encoder.decode([ids])
            if decoded != text:
                row = batch.rows[number]
                what = f"the tokens of row {row.id} decode to {shorten(decoded)}, but its {name} is {shorten(text)}"
                return UserError(
                    what, row.where, "the tokenizer's files are damaged or lack some bytes; use those of the model's repository"
                )
    raise AssertionError("the bytes of a batch differ, but not those of any row")


def _check_answers(batch: Batch, encoder: Encoder) -> int:
    """Number of supervised answers that do not decode to themselves; lossy tokenizers change some texts by design."""
    spans = np.cumsum(np.append(0, batch.piece_lengths))
    kinds, learned = np.array(batch.pieces.kinds), np.array(batch.pieces.learned)
    chosen = np.flatnonzero((kinds == ANSWER) & learned & (batch.piece_lengths > 0))
    decoded = encoder.decode([batch.ids[spans[piece] : spans[piece + 1]].tolist() for piece in chosen], inside=True)
    return sum(text != batch.pieces.texts[piece] for piece, text in zip(chosen, decoded, strict=True))


def moved_boundaries(batch: Batch, encoder: Encoder) -> int:
    """Number of answers whose beginning was merged into a token of the prompt."""
    if not encoder.lossless:
        spans = np.cumsum(np.append(0, batch.piece_lengths))
        kinds = np.array(batch.pieces.kinds)
        chosen = np.flatnonzero((kinds == ANSWER) & np.array([bool(text) for text in batch.pieces.texts]))
        decoded = encoder.decode([batch.ids[spans[piece] : spans[piece + 1]].tolist() for piece in chosen], inside=True)
        return sum(len(text) < len(batch.pieces.texts[piece]) for piece, text in zip(chosen, decoded, strict=True))
    _, begins = encoder.bytes_of
    widths = begins[batch.ids + 1] - begins[batch.ids]
    piece = np.repeat(np.arange(len(batch.piece_lengths)), batch.piece_lengths)
    found = np.bincount(piece, widths, len(batch.piece_lengths))
    wanted = np.array([len(text.encode()) for text in batch.pieces.texts])
    return int((found < wanted)[np.array(batch.pieces.kinds) == ANSWER].sum())
