"""Runs a `chat` teacher: its spec becomes rules, limits and a session, and its counts are reported."""

import re
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from stages.generate.asking import limits
from stages.generate.asking.batches import BatchSession
from stages.generate.asking.cache import Answers, answers_path
from stages.generate.asking.client import Client
from stages.generate.asking.conversation import Rules
from stages.generate.asking.reply import whole_words
from stages.generate.asking.request import Shape
from stages.generate.asking.schema import Structure
from stages.generate.asking.session import Limits, Session
from stages.generate.asking.status import Status
from stages.generate.question import Answer, Question, Tally
from stages.process.job import Job

if TYPE_CHECKING:
    from stages.generate.teachers.chat import Chat


def answers(teacher: "Chat", questions: Iterable[Question], job: Job, tally: Tally) -> Iterator[Answer]:
    """The answers to QUESTIONS, in order; if the caller stops early, requests in flight are awaited, because they are billed."""
    client = Client(teacher.base_url, teacher.api_key_env, teacher.in_flight, teacher.timeout)
    with Answers(answers_path()) as kept:
        session = _session(teacher, job.name, client, kept)
        status = Status(job.name, session, teacher.input_price is not None, tally.expected)
        try:
            for answer in session.ask(questions):
                yield answer
                status.answered(answer)
        finally:
            status.close()
            session.close()
            tally.measured["teacher"] = status.measured()


def _session(teacher: "Chat", step: str, client: Client, kept: Answers) -> Session | BatchSession:
    limits = _limits(teacher, kept)
    if teacher.batch:
        return BatchSession(step, rules(teacher), client, kept, limits, teacher.batch_poll)
    return Session(step, rules(teacher), client, kept, limits)


def rules(teacher: "Chat") -> Rules:
    """The fields of requests, and the requirements of answers."""
    policies = {name: getattr(teacher, name) for name in ("on_refusal", "on_empty", "on_cut_off", "on_invalid")}
    structure = Structure(teacher.json_schema, teacher.json_field) if teacher.json_schema is not None else None
    attempts = teacher.attempts if "retry" in policies.values() else 1
    return Rules(
        _shape(teacher), policies, attempts, tuple(map(re.compile, teacher.refusals)), structure, whole_words(teacher.finish_reasons)
    )


def _shape(teacher: "Chat") -> Shape:
    """The fields that all requests share; unset parameters are not sent."""
    fields: dict[str, Any] = {
        "model": teacher.model,
        "temperature": teacher.temperature,
        "top_p": teacher.top_p,
        "max_tokens": teacher.max_tokens,
        "seed": teacher.sampling_seed,
        "stop": list(teacher.stop) or None,
    }
    if teacher.json_schema is not None:
        fields["response_format"] = {
            "type": "json_schema",
            "json_schema": {"name": "answer", "schema": teacher.json_schema, "strict": True},
        }
    sent = {name: value for name, value in fields.items() if value is not None}
    return Shape(teacher.base_url.rstrip("/"), sent | teacher.extra)


def _limits(teacher: "Chat", kept: Answers) -> Limits:
    guess = limits.Guess(kept.averages(teacher.base_url.rstrip("/"), teacher.model))
    prices = limits.Prices(teacher.input_price or 0.0, teacher.output_price or 0.0)
    return Limits(
        in_flight=teacher.in_flight,
        retries=teacher.retries,
        give_up_after=teacher.give_up_after,
        requests=limits.Rate(teacher.requests_per_minute) if teacher.requests_per_minute else None,
        tokens=limits.Rate(teacher.tokens_per_minute) if teacher.tokens_per_minute else None,
        spending=limits.Spending(prices, teacher.max_requests, teacher.max_total_tokens, teacher.max_cost),
        guess=guess,
        circuit=limits.Circuit(max(8, teacher.in_flight)),
    )
