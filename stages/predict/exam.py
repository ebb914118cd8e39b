"""The test rows for a model: read from a split, fitted to its context, counted."""

import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any

from engine.core.errors import Location, UserError
from stages.chat.questions import LeftOut, Questions
from stages.predict import Parameters
from stages.process.job import Metrics
from stages.rows.rows import Row, read_rows


@dataclass(frozen=True)
class Question:
    """A test row as text and token ids; the prompt is empty if only its likelihood is measured."""

    id: str
    prompt: str
    reference: str | None
    input_ids: list[int]
    reference_ids: list[int]
    """Token ids of the reference with its end token; empty without a reference, or if its likelihood is not measured."""
    references: tuple[str, ...] = ()
    """All references, if the row has several."""
    reference_calls: list[dict[str, Any]] | None = None
    """Tool calls of the reference; None if the row has neither tools nor calls."""


@dataclass
class Exam:
    """The questions of one task, and counts of the other test rows."""

    questions: list[Question] = field(default_factory=list)
    rows_in: int = 0
    truncated: int = 0
    references_cut: int = 0
    """References truncated to the model's context before their likelihood was measured."""
    left_out: Counter[str] = field(default_factory=Counter)
    control_token_rows: int = 0
    """Rows whose text contains control tokens, including rows left out for them."""
    control_tokens: int = 0

    def limit(self, rows: int | None) -> None:
        """Keep at most ROWS questions: those whose ids have the smallest hashes, so that adding rows replaces few."""
        if rows is None or len(self.questions) <= rows:
            return
        order = sorted(range(len(self.questions)), key=lambda number: _hash(self.questions[number].id))
        chosen = set(order[:rows])
        self.left_out["not asked"] += len(self.questions) - len(chosen)
        self.questions = [question for number, question in enumerate(self.questions) if number in chosen]

    def counts(self) -> Metrics:
        """Counts in which every test row is either evaluated or left out for a reason."""
        rows_out = len(self.questions)
        assert self.rows_in == rows_out + sum(self.left_out.values())
        counts = {
            "rows_in": self.rows_in,
            "rows_out": rows_out,
            "left_out": dict(sorted(self.left_out.items())),
            "truncated": self.truncated,
        }
        controls = {"rows": self.control_token_rows, "tokens": self.control_tokens}
        more = {"references_cut": self.references_cut, "control_tokens_in_text": controls if self.control_tokens else None}
        return counts | {name: value for name, value in more.items() if value}


def _hash(identifier: str) -> bytes:
    return hashlib.sha256(identifier.encode("utf-8", "surrogatepass")).digest()


@dataclass(frozen=True)
class Reader:
    """Reads test rows for one model."""

    parameters: Parameters
    asking: Questions
    longest: int | None
    """The model's maximum positions; None if unknown."""

    def read(self, task: str, files: Mapping[str, Path]) -> Exam:
        """The rows of one or several splits (FILES by split) to answer, or to measure; raises UserError if none is left."""
        exam = Exam()
        for row in chain.from_iterable(read_rows(path, unanswered=True) for path in files.values()):
            exam.rows_in += 1
            tokens = self.asking.control_tokens(row)
            exam.control_tokens += tokens
            exam.control_token_rows += tokens > 0
            question = self._question(task, row)
            if isinstance(question, str):
                exam.left_out[question] += 1
            elif fitting := self._fit(task, question):
                exam.truncated += fitting.input_ids != question.input_ids
                exam.references_cut += fitting.reference_ids != question.reference_ids
                exam.questions.append(fitting)
            else:
                exam.left_out["over length"] += 1
        if not exam.questions:
            reasons = ", ".join(f"{count} for {reason}" for reason, count in sorted(exam.left_out.items()))
            split, path = list(files.items())[-1]
            hint = f"increase tasks.{task}.split.{split}, give the task more rows, or remove it from evaluation.tasks"
            what = f"task '{task}' has no {' or '.join(files)} rows to evaluate on"
            raise UserError(f"{what}: left out {reasons}" if reasons else what, Location(str(path)), hint)
        exam.limit(self.parameters.rows)
        return exam

    def question(self, task: str, row: Row) -> Question | str:
        """ROW as a question that fits the model, or the reason for leaving it out; raises UserError if the policies refuse it."""
        question = self._question(task, row)
        return question if isinstance(question, str) else self._fit(task, question) or "over length"

    def _question(self, task: str, row: Row) -> Question | str:
        """The row as a question of any length, or the reason for leaving it out."""
        try:
            return self._rendered(task, row)
        except LeftOut as reason:
            return str(reason)

    def _rendered(self, task: str, row: Row) -> Question | str:
        if not row.is_well_formed():
            return "lone surrogate"
        if row.desirable is False:
            return "undesirable answer"
        (input_ids,) = self.asking.ids([row])
        if not input_ids and task in self.parameters.tasks:
            raise UserError(
                f"this test row of task '{task}' has an empty prompt", row.where, "a model needs at least one token to continue"
            )
        reference_ids = self._reference(row) if self.parameters.likelihood or task in self.parameters.held_out else []
        if task in self.parameters.held_out and len(input_ids) + len(reference_ids) < 2:
            return "nothing to read"
        reference_calls = row.reference_calls if row.answered else []
        calls = [call._asdict() for call in reference_calls] if row.tools or reference_calls else None
        return Question(
            row.id, row.asked, self.asking.answer(row) if row.answered else None, input_ids, reference_ids, row.references, calls
        )

    def _reference(self, row: Row) -> list[int]:
        """Token ids as supervised in training: the text and one end token."""
        return self.asking.references([row])[0] if row.answered else []

    def _fit(self, task: str, question: Question) -> Question | None:
        """QUESTION if it fits the model; by policy, truncated or None if not; raises UserError if the policy is to fail."""
        if self.longest is None:
            return question
        asked = self.parameters.tasks.get(task)
        if asked is not None:
            cut = self._fit_prompt(task, question, self.longest - self._shared(asked.max_new_tokens))
            return cut and self._fit_reference(cut)
        if len(question.input_ids) + self._shared(len(question.reference_ids)) > self.longest and self.parameters.over_length == "drop":
            return None
        return self._fit_reference(question)

    def _fit_prompt(self, task: str, question: Question, room: int) -> Question | None:
        length = len(question.input_ids)
        if length <= room:
            return question
        if self.parameters.over_length == "drop":
            return None
        if self.parameters.over_length == "truncate_prompt_left" and room > 0:
            return replace(question, input_ids=question.input_ids[-room:])
        hint = (
            f"decrease tasks.{task}.max_new_tokens, set tokenization.over_length, shorten the prompts, or use a model with more positions"
        )
        what = f"prompt {question.id} of task '{task}' has {length} tokens, but the model has room for only {room} before the answer"
        raise UserError(what, hint=hint)

    def _fit_reference(self, question: Question) -> Question:
        """QUESTION with its reference truncated to the model's context."""
        assert self.longest is not None
        return replace(question, reference_ids=question.reference_ids[: max(self.longest - self._shared(len(question.input_ids)), 0)])

    def _shared(self, tokens: int) -> int:
        """Number of TOKENS that count against the rest of the row: 0 for an encoder-decoder, which has separate contexts."""
        return 0 if self.parameters.encoder_decoder else tokens
