"""`python -m stages.generate.asking.forecast`: requests that a chat teacher would need, and how many are paid for; sends nothing.

The plan runs this in a separate process, since it needs a kind's body. One JSON object (name, parameters, inputs) on stdin, one on stdout.
"""

import json
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engine.core.errors import UserError
from engine.core.part import with_tuples
from stages.generate import Parameters
from stages.generate.asking.cache import Answers, Averages, answers_path
from stages.generate.asking.conversation import Rules
from stages.generate.asking.limits import Guess, Prices
from stages.generate.asking.request import Request
from stages.generate.asking.teach import rules
from stages.generate.question import Answer, Question, Tally
from stages.generate.teachers.chat import Chat
from stages.process.job import Job

_SECONDS = 10.0
"""Seconds to count rows; for a larger source the plan says `at least`."""


@dataclass
class Forecaster:
    """A stand-in for the teacher: counts requests, and leaves every row out."""

    rules: Rules
    kept: Answers | None
    guess: Guess
    rows: int = 0
    cached: int = 0
    prompt_tokens: float = 0.0
    completion_tokens: float = 0.0
    complete: bool = False
    to_pay: set[bytes] = field(default_factory=set)

    def columns(self) -> tuple[str, ...]:
        """Empty: answers depend on the prompt only."""
        return ()

    def answers(self, questions: Iterable[Question], job: Job, tally: Tally) -> Iterator[Answer]:
        """Empty answers, for as many rows as time allows."""
        deadline = time.monotonic() + _SECONDS
        for question in questions:
            self._count(question)
            if time.monotonic() > deadline:
                raise TimeoutError
            yield Answer("", "not asked")
        self.complete = True

    def _count(self, question: Question) -> None:
        self.rows += 1
        request = self._first_unknown(question)
        if request is None:
            self.cached += 1
        elif request.key not in self.to_pay:
            self.to_pay.add(request.key)
            self.prompt_tokens += self.guess.prompt(request)
            self.completion_tokens += self.guess.completion(request)

    def _first_unknown(self, question: Question) -> Request | None:
        """The first unpaid request about a row; None if cached answers settle the row."""
        conversation = self.rules.converse(question)
        try:
            request = next(conversation)
            while self.kept and (reply := self.kept.find(request.key)):
                request = conversation.send(reply)
        except (StopIteration, UserError):
            return None
        return request


def forecast(parameters: Parameters, name: str, inputs: dict[str, str]) -> dict[str, Any]:
    """Rows, unpaid requests, and their estimated tokens and price; raises UserError if the rows cannot be generated."""
    from stages.generate import body

    teacher = parameters.teacher
    assert isinstance(teacher, Chat)
    path = answers_path()
    kept = Answers(path, read_only=True) if path.exists() else None
    known = kept.averages(teacher.base_url.rstrip("/"), teacher.model) if kept else Averages(0, None, None)
    forecaster = Forecaster(rules(teacher), kept, Guess(known))
    with tempfile.TemporaryDirectory() as folder:
        job = Job(name, {role: Path(where) for role, where in inputs.items()}, Path(folder), None, Path(folder))
        try:
            body.run(parameters.model_copy(update={"teacher": forecaster}), job)
        except TimeoutError:
            pass  # the counts so far are reported as `at least`
        except UserError:
            # All rows are counted; that none is answered yet is not an error.
            if not forecaster.complete:
                raise
    return _told(forecaster, teacher)


def _told(forecaster: Forecaster, teacher: Chat) -> dict[str, Any]:
    priced = teacher.input_price is not None and teacher.output_price is not None
    prices = Prices(teacher.input_price or 0.0, teacher.output_price or 0.0)
    tokens = forecaster.prompt_tokens, forecaster.completion_tokens
    return {
        "rows": forecaster.rows,
        "rows_cached": forecaster.cached,
        "requests": len(forecaster.to_pay),
        "prompt_tokens": round(tokens[0]),
        "completion_tokens": round(tokens[1]),
        "cost": round(prices.cost(*tokens), 4) if priced else None,
        "complete": forecaster.complete,
    }


def main() -> int:
    """Answer one request of the plan; the exit code is 1, with the reason on stderr, if it cannot be answered."""
    asked = json.load(sys.stdin)
    try:
        parameters = Parameters.model_validate(with_tuples(asked["parameters"]))
        json.dump(forecast(parameters, asked["name"], asked["inputs"]), sys.stdout)
    except (UserError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
