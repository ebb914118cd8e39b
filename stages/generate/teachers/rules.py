"""Completions by rules that read the row's text: a teacher that costs nothing and is never wrong."""

from collections.abc import Iterable, Iterator
from typing import Literal

from engine.errors import UserError, did_you_mean
from engine.part import Part, recipe
from stages.common.job import Job
from stages.common.text import shorten
from stages.generate.question import Answer, Question, Tally


class Rules(Part):
    """A deterministic rule over the text of a row."""

    kind: Literal["rules"] = "rules"
    rule: Literal["key_sentence", "headline", "topic"] = recipe(description="What is answered about a synthetic report.")
    column: str = recipe("text", "The column that holds the text.", min_length=1)

    def columns(self) -> tuple[str, ...]:
        """The columns of a row that the answer depends on, beside the prompt."""
        return (self.column,)

    def answers(self, questions: Iterable[Question], job: Job, tally: Tally) -> Iterator[Answer]:
        """What the rule says about each row; raises UserError where the column is missing or the rule finds nothing."""
        for question in questions:
            yield Answer(self._text(question))

    def _text(self, question: Question) -> str:
        from stages.generate import reports

        text = question.row.get(self.column)
        if not isinstance(text, str):
            raise UserError(f"this row has no text in column '{self.column}'", question.where, did_you_mean(self.column, question.row))
        answer = {"key_sentence": reports.key_sentence, "headline": reports.headline, "topic": reports.topic}[self.rule](text)
        if answer is None:
            what = f"rule '{self.rule}' finds no answer in this text: {shorten(text)}"
            raise UserError(what, question.where, "the rules read synthetic reports only")
        return answer
