"""Unrolls conversations into one row per supervised turn, rendered as the model sees it at that point."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

from stages.chat.templates import Rewritten
from stages.rows.rows import Row
from stages.rows.turns import Rendered
from stages.tokenize.masks.assistant import Assistant


class Units(NamedTuple):
    """The rows that a row becomes, each with its rendering; several for an unrolled conversation."""

    rows: Sequence[tuple[Row, Callable[[Row], Rendered]]]
    unrolled: bool = False


def unroll(row: Row, renderer: Any, mask: Any) -> Units:
    """ROW, or its unrolled rows; raises UserError if its template fails."""
    conversation = row.conversation()
    answers = [number for number, message in enumerate(conversation) if message["role"] == "assistant"]
    whole = Units([(row, renderer.render)])
    if not isinstance(mask, Assistant) or mask.turns == "last" or len(answers) == 1:
        if mask.kind in ("assistant", "completion"):
            return Units([(row, partial(_last_alone, renderer))])
        return whole
    learned = [number for number in answers if conversation[number].get("train", True)]
    if mask.unroll is False or (mask.unroll == "auto" and not _rewrites(row, renderer, learned)):
        return whole
    rows = [(_part(row, number), partial(_at, renderer)) for number in learned]
    return Units(rows, unrolled=True) if rows else whole


def _last_alone(renderer: Any, row: Row) -> Rendered:
    """The rendering of ROW; only its last turn if the template renders earlier answers differently."""
    try:
        found: Rendered = renderer.render(row)
    except Rewritten:
        last = max(number for number, message in enumerate(row.conversation()) if message["role"] == "assistant")
        found = renderer.at(row, last)
    return found


def _part(row: Row, number: int) -> Row:
    """ROW up to message NUMBER, with a new id."""
    part = row.up_to(number)
    return replace(part, id=f"{row.id}:{number}", part_of=row.id)


def _at(renderer: Any, row: Row) -> Rendered:
    found: Rendered = renderer.at(row, len(row.conversation()) - 1)
    return found


def _rewrites(row: Row, renderer: Any, learned: list[int]) -> bool:
    """Whether a supervised answer of ROW, or the text before it, differs from what the model sees at that point."""
    try:
        whole = renderer.render(row)
    except Rewritten:
        return True
    turns = {
        number: turn for turn, number in enumerate(n for n, message in enumerate(row.conversation()) if message["role"] == "assistant")
    }
    return any(_texts(renderer.at(row, number)) != _texts(whole, turns[number] + 1) for number in learned)


def _texts(rendered: Rendered, turns: int | None = None) -> tuple[str, str]:
    """The text before the last answer, and the answer; of the first TURNS only, if given."""
    *earlier, last = rendered.turns[:turns]
    return "".join(turn.before + turn.answer + (turn.end or "") for turn in earlier) + last.before, last.answer
