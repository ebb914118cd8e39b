"""Completions by rules that read the row's text: a teacher that costs nothing and is never wrong."""

from typing import Literal

from engine.errors import Location, UserError, did_you_mean
from engine.part import Part, recipe
from stages.common.text import shorten


class Rules(Part):
    """A deterministic rule over the text of a row."""

    kind: Literal["rules"] = "rules"
    rule: Literal["key_sentence", "headline", "topic"] = recipe(description="What is answered about a synthetic report.")
    column: str = recipe("text", "The column that holds the text.", min_length=1)

    def answer(self, row: dict[str, object], where: Location) -> str:
        """What the rule says about ROW; raises UserError where the column is missing or the rule finds nothing."""
        from stages.generate import reports

        text = row.get(self.column)
        if not isinstance(text, str):
            raise UserError(f"this row has no text in column '{self.column}'", where, did_you_mean(self.column, row))
        answer = {"key_sentence": reports.key_sentence, "headline": reports.headline, "topic": reports.topic}[self.rule](text)
        if answer is None:
            what = f"rule '{self.rule}' finds no answer in this text: {shorten(text)}"
            raise UserError(what, where, "the rules read synthetic reports only")
        return answer
