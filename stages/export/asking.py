"""Turns held-out rows into questions, and asks the trained model."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.core.errors import UserError
from stages.chat.questions import LeftOut, Questions
from stages.export import Parameters
from stages.export.asked import Asked, Question
from stages.export.runtimes.base import Chat, Said
from stages.rows.rows import Row, read_rows, without_reasoning
from stages.tokens.encoder import Encoder


@dataclass(frozen=True)
class Asker:
    """Turns rows into questions."""

    parameters: Parameters
    asking: Questions
    encoder: Encoder
    template: Path | None
    longest: int | None

    def questions(self, splits: Mapping[str, Path]) -> list[Question]:
        """At most `rows` questions of each task's file in SPLITS: those whose ids have the smallest hashes.

        Raises UserError if none is left.
        """
        found = []
        for task, path in sorted(splits.items()):
            rows = sorted((row for row in read_rows(path, unanswered=True) if row.is_well_formed()), key=_hash)
            of_task: list[Question] = []
            for row in rows:
                if len(of_task) < self.parameters.rows and (question := self._question(task, row)):
                    of_task.append(question)
            found += of_task
        if not found:
            raise UserError("no held-out row can be asked, so the export cannot be verified", hint="give a task more test rows")
        return found

    def _question(self, task: str, row: Row) -> Question | None:
        """ROW as a question; None if the policies leave it out, or if it does not fit the model."""
        try:
            (prompt,) = self.asking.ids([row])
        except LeftOut:
            return None
        limit = self.parameters.tasks[task]
        if not prompt or (self.longest is not None and len(prompt) + limit > self.longest):
            return None
        if self.parameters.strip_reasoning:
            row, _ = without_reasoning(row)
        if self.asking.control_tokens(row) or self.parameters.markers:
            return Question(task, row.id, prompt, None, None, limit)
        return Question(task, row.id, prompt, self._text(row), self._chat(row), limit)

    def _text(self, row: Row) -> str:
        """The rendered prompt of ROW."""
        *earlier, last = self._rendered(row).turns
        said = (turn.before + turn.answer + (self.encoder.eos if turn.end is None else turn.end) for turn in earlier)
        return "".join(said) + last.before

    def _rendered(self, row: Row) -> Any:
        renderer = self.parameters.format.renderer(self.encoder, self.template)
        return renderer.at(row, _last(row)) if row.messages else renderer.render(row)

    def _chat(self, row: Row) -> Chat | None:
        """The conversation of ROW up to its last answer, as the chat template expects it."""
        presentation = getattr(self.parameters.format.renderer(self.encoder, self.template), "presentation", None)
        if presentation is None:
            return None
        part = row.up_to(_last(row)) if row.messages else row
        return Chat([presentation.present(one, row.where) for one in part.conversation()[:-1]], row.tools)


def _last(row: Row) -> int:
    """The number of the last answer among the messages of ROW."""
    return max(number for number, message in enumerate(row.conversation()) if message["role"] == "assistant")


def _hash(row: Row) -> bytes:
    return hashlib.sha256(row.id.encode("utf-8", "surrogatepass")).digest()


def ask(model: Any, questions: Sequence[Question], ends: Sequence[int], done: Callable[[int], None] = lambda rows: None) -> list[Asked]:
    """What MODEL says to each of QUESTIONS, alone in its batch, as the predict step does; ENDS are the ids of the end tokens."""
    from stages.export.runtimes.transformers import next_tokens
    from stages.models.generation import generate

    found = []
    for question in questions:
        (ids,) = generate(model, [question.prompt], ends, question.max_new_tokens, 1)
        stopped = bool(ids) and ids[-1] in ends
        said = Said(tuple(ids[: len(ids) - stopped]), stopped)
        before, after = (next_tokens(model, [*question.prompt, *more]) for more in ((), said.ids))
        found.append(Asked(question, said, before, after))
        done(1)
    return found
