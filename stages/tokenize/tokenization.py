"""Converts rows to arrays for a token file: applies the length policies and checks the invariants of ids and labels on every row."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from engine.core.errors import Problem, UserError
from stages.chat.unrendered import refusal, unrendered
from stages.rows.control_tokens import Breaker
from stages.rows.messages import inline_reasoning, reasoning_of
from stages.rows.rows import Row, without_reasoning
from stages.rows.turns import Rendered
from stages.tokenize import Parameters
from stages.tokenize.batch import Batch, check_text, encode_batch, moved_boundaries, unfit
from stages.tokenize.counts import Counts
from stages.tokenize.lengths import Tokenized, cut_completion, cut_pair, cut_prompt, cut_up
from stages.tokenize.masks.assistant import Assistant
from stages.tokenize.unrolling import unroll
from stages.tokens.encoder import Array, Encoder
from stages.tokens.encoding import ANSWER, CONTEXT, END

Part = tuple[Array, Array, Array, Array | None]
"""Token ids int32 [tokens], supervision mask uint8 [tokens], lengths of the rows [rows], and lengths of their sources [rows]."""


class Tokenization:
    """Converts the rows of one split to arrays and counts them."""

    def __init__(self, parameters: Parameters, encoder: Encoder, template: Path | None = None) -> None:
        self.parameters, self.encoder = parameters, encoder
        self.renderer = parameters.format.renderer(encoder, template)
        self.counts = Counts()
        self._front = self.renderer.starts and bool(encoder.prefix)
        # Conversation numbers of the rows yielded since they were last taken.
        self._handed_on: list[str | None] = []
        self._conversations, self._last = 0, ""
        self._breaker = Breaker((*encoder.special, *self.renderer.controls))

    def parts(self, rows: Sequence[Row]) -> Iterator[Part]:
        """The token arrays of ROWS, in order; raises UserError if a policy is to fail."""
        return self.arrays(self.encoded(self.rendered(rows)))

    def rendered(self, rows: Sequence[Row]) -> list[tuple[Row, Rendered]]:
        """The rendered text of each of ROWS; raises UserError if a policy is to fail."""
        self.counts.rows_in += len(rows)
        usable = [row for row in rows if row.is_well_formed()]
        self.counts.leave_out("lone surrogate", len(rows) - len(usable), 0)
        if not self.parameters.judged:
            learned = [row for row in usable if row.desirable is not False]
            self.counts.leave_out("undesirable answer", len(usable) - len(learned), 0)
            usable = learned
        found = [(row, one) for given in usable for row, one in self._units(given)]
        self._refuse([row for row, one in found if not one.turns], "nothing to learn: no answer is marked")
        return [(row, one) for row, one in found if one.turns]

    def _units(self, row: Row) -> Iterator[tuple[Row, Rendered]]:
        """The rendered rows of a row: itself, or one per supervised turn; none if it is left out."""
        mask, counts = self.parameters.mask, self.counts
        if tokens := self._breaker.found(row):
            counts.control_token_rows += 1
            counts.control_tokens += len(tokens)
            match self.parameters.control_tokens_in_text:
                case "refuse":
                    hint = 'set tokenization.control_tokens_in_text = "text" to encode it as text, "drop", or "control"'
                    raise UserError(f"the text of row {row.id} contains the control token {tokens[0]!r}", row.where, hint)
                case "drop":
                    counts.leave_out("control tokens in the text", 1, 0)
                    return
                case "text":
                    row = self._breaker.broken(row)
        if isinstance(mask, Assistant) and mask.reasoning == "strip":
            row, stripped = without_reasoning(row)
            counts.reasoning.update({"stripped": stripped} if stripped else {})
        units = unroll(row, self.renderer, mask)
        if units.unrolled:
            counts.unrolled += 1
            counts.unrolled_rows += len(units.rows)
        for unit, render in units.rows:
            rendered = render(unit)
            chosen = mask.choose(rendered, self.encoder.bos, self.encoder.eos)
            if self._is_whole(unit, rendered, chosen, render):
                yield unit, self._without_learned_reasoning(unit, chosen)

    def _is_whole(self, row: Row, rendered: Rendered, chosen: Rendered, render: Callable[[Row], Rendered]) -> bool:
        """Whether to use a row whose template may omit part of it; raises UserError if the policy is to fail."""
        learned = [turn.learned for turn in chosen.turns] if len(chosen.turns) == len(rendered.turns) else [True] * len(rendered.turns)
        lacking = unrendered(row, rendered, learned, render)
        if lacking and self.parameters.unrendered == "drop":
            self.counts.leave_out(f"not rendered: {', '.join(lacking)}", 1, 0)
            return False
        if lacking and self.parameters.unrendered == "refuse":
            raise UserError(*refusal(row, lacking, self.parameters.format.kind, isinstance(self.parameters.mask, Assistant)))
        self.counts.unrendered.update(lacking)
        return True

    def _without_learned_reasoning(self, row: Row, rendered: Rendered) -> Rendered:
        """RENDERED with the reasoning of its supervised turns moved to the text before the answers, if the mask requires it."""
        mask = self.parameters.mask
        if not isinstance(mask, Assistant) or mask.reasoning != "mask":
            return rendered
        answers = [message for message in row.conversation() if message["role"] == "assistant"]
        if len(answers) != len(rendered.turns):
            answers = answers[-1:]
        turns = []
        for turn, message in zip(rendered.turns, answers, strict=True):
            reasoning = (reasoning_of(message) or inline_reasoning(message["content"] or "")[0]).strip()
            position = turn.answer.find(reasoning) if reasoning and turn.learned else -1
            if position >= 0:
                self.counts.reasoning["masked"] += 1
                cut = position + len(reasoning)
                turn = turn._replace(before=turn.before + turn.answer[:cut], answer=turn.answer[cut:])
            turns.append(turn)
        return rendered._replace(turns=tuple(turns))

    def marks(self, rows: int) -> dict[str, Array]:
        """Columns of the token file that say which of the ROWS rows yielded last are the better answers, uint8 [rows]; usually none."""
        return {}

    def encoded(self, rows: Sequence[tuple[Row, Rendered]]) -> Batch | None:
        """The tokens of rendered rows; does not change the object, so it may run in another thread."""
        if not rows:
            return None
        return encode_batch([row for row, _ in rows], [one for _, one in rows], self.parameters, self.encoder, self._front)

    def arrays(self, batch: Batch | None) -> Iterator[Part]:
        """The arrays of encoded rows, after all checks; raises UserError if a policy is to fail."""
        if batch is None:
            return
        self.counts.tokens_in += len(batch.ids)
        keep = self._keep(batch)
        self.counts.mismatches += check_text(batch, self.encoder)
        if self.parameters.boundary == "shift":
            self.counts.moved_boundaries += moved_boundaries(batch, self.encoder)
        lengths = batch.lengths
        long = self._too_long(batch, lengths) & keep
        # Runs of unchanged rows stay together; a changed row is a run of one.
        edges = np.flatnonzero(np.append(True, long[1:] | long[:-1])).tolist()
        for first, last in zip(edges, [*edges[1:], len(long)], strict=True):
            if long[first]:
                yield from self._cut(batch, first)
            else:
                yield from self._whole(batch, first, last, keep, lengths)

    def take_conversations(self) -> Array | None:
        """Conversation numbers of the rows yielded since the last call, int32 [rows]; None if each row counts separately."""
        handed_on, self._handed_on = self._handed_on, []
        if not self.counts_conversations:
            return None
        numbers = []
        for part_of in handed_on:
            if part_of is None or part_of != self._last:
                self._conversations += 1
            self._last = part_of or ""
            numbers.append(self._conversations - 1)
        self.counts.conversations = self._conversations
        return np.array(numbers, np.int32)

    @property
    def counts_conversations(self) -> bool:
        """Whether the rows of an unrolled conversation count once per epoch."""
        mask = self.parameters.mask
        return isinstance(mask, Assistant) and mask.unroll is not False and mask.weight == "conversation"

    def _keep(self, batch: Batch) -> Array:
        """The rows that are kept, before length policies, bool [rows]."""
        keep = np.ones(len(batch.rows), bool)
        lengths = batch.lengths
        for reason, rows in unfit(batch, self.encoder, self.parameters.mask.everything).items():
            self._refuse([batch.rows[number] for number in np.flatnonzero(rows).tolist()], reason, int(lengths[rows].sum()))
            keep &= ~rows
        return keep

    def _refuse(self, rows: Sequence[Row], reason: str, tokens: int = 0) -> None:
        """Leave ROWS out, or raise UserError if rows without supervised tokens are an error."""
        if rows and reason.startswith("nothing to learn") and self.parameters.nothing_supervised == "error":
            hint = 'choose another tokenization.mask, or set tokenization.nothing_supervised = "drop"'
            raise UserError(f"row {rows[0].id} has {reason}", rows[0].where, hint)
        self.counts.leave_out(reason, len(rows), tokens)

    def _whole(self, batch: Batch, first: int, last: int, keep: Array, lengths: Array) -> Iterator[Part]:
        """The kept rows from FIRST to LAST, unchanged."""
        chosen = np.zeros(len(keep), bool)
        chosen[first:last] = keep[first:last]
        if not chosen.any():
            return
        tokens = chosen[batch.token_rows]
        self._handed_on += [batch.rows[number].part_of for number in np.flatnonzero(chosen).tolist()]
        sources = batch.count(batch.kinds == CONTEXT)[chosen].astype(np.int32) if self.parameters.encoder_decoder else None
        cut_off = sum(not batch.rows[number].ended for number in np.flatnonzero(chosen).tolist())
        yield self._checked(batch.ids[tokens], batch.supervised[tokens], batch.kinds[tokens], lengths[chosen], sources, cut_off)

    def _too_long(self, batch: Batch, lengths: Array) -> Array:
        if not self.parameters.encoder_decoder:
            return np.asarray(lengths > self.parameters.max_length)
        sources = batch.count(batch.kinds == CONTEXT)
        return np.asarray((sources > self.parameters.max_length) | (lengths - sources > self._longest_target))

    @property
    def _longest_target(self) -> int:
        return self.parameters.max_target_length or self.parameters.max_length

    def _cut(self, batch: Batch, number: int) -> Iterator[Part]:
        """The arrays of a row that is too long, by policy."""
        row = batch.row(number)
        made = self._shortened(batch.rows[number], row)
        if isinstance(made, str):
            self.counts.leave_out(made, 1, len(row))
            return
        if self.parameters.over_length == "split":
            made = self._learnable(row, made)
        else:
            self.counts.truncated += 1
            self.counts.truncated_tokens += len(row) - len(made[0])
        for part in made:
            sources = np.array([part.source], np.int32) if self.parameters.encoder_decoder else None
            self._handed_on.append(batch.rows[number].part_of)
            yield self._checked(part.ids, part.supervised, part.kinds, np.array([len(part)]), sources, 0 if len(made) == 1 else None)

    def _learnable(self, row: Tokenized, parts: list[Tokenized]) -> list[Tokenized]:
        """The pieces of ROW with supervised tokens."""
        self.counts.cut_up += 1
        self.counts.added_rows += len(parts) - 1
        self.counts.added_tokens += sum(map(len, parts)) - len(row)
        for part in parts:
            if not part.supervised.any():
                self.counts.leave_out("nothing to learn in this part of a split row", 1, len(part))
        return [part for part in parts if part.supervised.any()]

    def _shortened(self, row: Row, tokens: Tokenized) -> list[Tokenized] | str:
        """The row or rows by policy, or the reason for leaving it out; raises UserError if the policy is to fail."""
        if self.parameters.encoder_decoder:
            return self._shortened_pair(row, tokens)
        limit = self.parameters.max_length
        match self.parameters.over_length:
            case "truncate_prompt_left":
                made = cut_prompt(tokens, limit, self._kept(tokens))
            case "truncate_completion_right":
                made = cut_completion(tokens, limit)
            case "split":
                return list(cut_up(tokens, limit))
            case _:
                return self._dropped(row, len(tokens), limit, "max_length")
        return made if isinstance(made, str) else [made]

    def _dropped(self, row: Row, length: int, limit: int, name: str) -> str:
        if self.parameters.over_length == "drop":
            return f"longer than {name}"
        hint = f'increase tokenization.{name}, or set over_length to "drop", "truncate_prompt_left", "truncate_completion_right" or "split"'
        raise UserError([Problem(f"row {row.id} has {length} tokens, more than {name} = {limit}", row.where, hint)])

    def _kept(self, row: Tokenized) -> int:
        """Number of leading tokens that no policy truncates: the begin-of-sequence token."""
        if self._front:
            return len(self.encoder.prefix)
        return int(self.encoder.bos is not None and row.ids[0] == self.encoder.tokenizer.token_to_id(self.encoder.bos))

    def _shortened_pair(self, row: Row, tokens: Tokenized) -> list[Tokenized] | str:
        """Like `_shortened`, for a row with separate limits for input and labels."""
        source, target = tokens.take(slice(0, tokens.source)), tokens.take(slice(tokens.source, None))
        limits = {"max_length": self.parameters.max_length, "max_target_length": self._longest_target}
        for name, part in {"max_length": source, "max_target_length": target}.items():
            if len(part) > limits[name] and self.parameters.over_length in ("error", "drop"):
                return self._dropped(row, len(part), limits[name], name)
        if len(source) > limits["max_length"] and self.parameters.over_length == "truncate_completion_right":
            return "prompt longer than max_length"
        if len(target) > limits["max_target_length"] and self.parameters.over_length == "truncate_prompt_left":
            return "completion longer than max_target_length"
        return [cut_pair(source, target, limits["max_length"], limits["max_target_length"], self._kept(tokens))]

    def _checked(self, ids: Array, supervised: Array, kinds: Array, lengths: Array, sources: Array | None, cut_off: int | None) -> Part:
        """The arrays of rows to write, after checking their invariants.

        CUT_OFF: how many of their last answers were cut off and have no end; None if answers may continue in other rows.
        """
        ends = (kinds == END) & (supervised == 1)
        row_ends = np.cumsum(lengths) - 1
        last = _last_of_runs(supervised == 1, row_ends)
        assert (np.add.reduceat(supervised, row_ends + 1 - lengths, dtype=np.int64) > 0).all(), "every row must have supervised tokens"
        assert self.parameters.encoder_decoder or lengths.max() <= self.parameters.max_length
        assert cut_off is None or not (kinds[supervised == 1] == ANSWER).any() or ends.any() or cut_off == len(lengths)
        if not self.parameters.mask.everything:
            assert not supervised[kinds == CONTEXT].any(), "no prompt, system or tool message may be supervised"
            endless = int(np.count_nonzero(kinds[last] != END))
            assert cut_off is None or endless == cut_off, "every supervised answer must be followed by its supervised end token"
            self.counts.cut_off += cut_off or 0
        self.counts.write(supervised, lengths, int(np.count_nonzero(_last_of_runs(ends, row_ends))))
        return ids, supervised, lengths, sources


def _last_of_runs(chosen: Array, row_ends: Array) -> Array:
    """Positions of CHOSEN tokens that are followed by one that is not chosen, or by another row."""
    followed = np.append(chosen[1:], False)
    followed[row_ends] = False
    return np.flatnonzero(chosen & ~followed)
