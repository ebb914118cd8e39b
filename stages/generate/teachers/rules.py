"""Completions from deterministic rules over the row's text, free and always correct."""

import re
from collections.abc import Iterable, Iterator
from typing import ClassVar, Literal

from engine.core.errors import UserError, did_you_mean
from engine.core.part import Part, recipe
from stages.generate.question import Answer, Question, Tally
from stages.process.job import Job
from stages.rows.text import shorten


class Rules(Part):
    """A deterministic rule over the text of a row."""

    kind: Literal["rules"] = "rules"
    rule: Literal["key_sentence", "headline", "topic", "lead"] = recipe(
        description="The rule: facts of a synthetic report, or `lead`, the first sentence of any text or list of sentences."
    )
    column: str = recipe("text", "Column with the text.", min_length=1)

    free: ClassVar[bool] = True
    """Whether answers cost nothing, so that a preview may request them."""

    def columns(self) -> tuple[str, ...]:
        """Columns of a row that the answer depends on, in addition to the prompt."""
        return (self.column,)

    def answers(self, questions: Iterable[Question], job: Job, tally: Tally) -> Iterator[Answer]:
        """The rule's answer for each row; raises UserError if the column is missing or the rule finds no answer."""
        for question in questions:
            yield Answer(self._text(question))

    def _text(self, question: Question) -> str:
        text = question.row.get(self.column)
        if self.rule == "lead" and isinstance(text, list):
            text = next((item for item in text if isinstance(item, str) and item.strip()), "")
        if not isinstance(text, str):
            raise UserError(f"this row has no text in column '{self.column}'", question.where, did_you_mean(self.column, question.row))
        return _lead(text) if self.rule == "lead" else self._about_report(text, question)

    def _about_report(self, text: str, question: Question) -> str:
        from stages.generate import reports

        answer = {"key_sentence": reports.key_sentence, "headline": reports.headline, "topic": reports.topic}[self.rule](text)
        if answer is None:
            what = f"rule '{self.rule}' finds no answer in this text: {shorten(text)}"
            raise UserError(what, question.where, "this rule supports only synthetic reports")
        return answer


# A full stop followed by a capital: cheap, but wrong after abbreviations; not needed for a list of sentences.
_END_OF_SENTENCE = re.compile(r"(?<=[.!?])\s+(?=[A-Z0-9\"'(])")


def _lead(text: str) -> str:
    """The first sentence of TEXT."""
    return _END_OF_SENTENCE.split(text.strip(), maxsplit=1)[0].strip()
