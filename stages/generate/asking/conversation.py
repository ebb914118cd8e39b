"""The requests about one row until it is settled, as a coroutine without I/O, shared by sessions, batches and forecasts."""

import re
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import Literal

from engine.core.errors import UserError
from stages.generate.asking.reply import End, Reply, end_of
from stages.generate.asking.request import Message, Request, Shape, opening
from stages.generate.asking.schema import Structure
from stages.generate.question import Answer, Question
from stages.rows.text import ascii_surrogates, shorten

Policy = Literal["retry", "drop", "fail"]
Conversation = Generator[Request, Reply, Answer]

REFUSED, EMPTY, CUT_OFF, INVALID = "refused", "empty answer", "cut off", "invalid JSON"
CALL, NOT_TEXT, UNTOLD = "tool call", "not text", "no finish_reason"
_LONGEST_REASON = 40
_AS_NONE = ' as "none"'


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether an answer is used, and if not, why."""

    completion: str
    """The completion; empty if the answer is not used."""
    reason: str | None = None
    """Reason for not using it, as it is counted; None if it is used."""
    option: str = ""
    """The teacher's field with the policy for this reason."""
    complaint: str | None = None
    """The complaint for a repeated request, if one may help."""


@dataclass(frozen=True)
class Rules:
    """Requirements of an answer, and policies for answers that violate them."""

    shape: Shape
    policies: Mapping[str, Policy]
    """Policies by the teacher's field."""
    attempts: int = 1
    refusals: tuple[re.Pattern[str], ...] = ()
    structure: Structure | None = None
    also_whole: frozenset[str] = frozenset()
    """Further finish reasons of complete answers, normalised by `whole_words`."""

    def converse(self, question: Question) -> Conversation:
        """Coroutine for one row: yields requests, receives replies, returns the answer; raises UserError if a policy says to fail."""
        messages = opening(question.system, question.prompt)
        for attempt in range(self.attempts):
            reply = yield self.shape.request(messages, attempt)
            verdict = self._judge(reply)
            if verdict.complaint:
                reply = yield self.shape.request(_again(messages, reply, verdict.complaint), attempt)
                verdict = self._judge(reply)
            if verdict.reason is None:
                return Answer(verdict.completion)
            policy = self.policies[verdict.option]
            if policy == "fail":
                raise UserError(f"{verdict.reason}: {_shown(reply, verdict.complaint)}", question.where, _way_out(verdict))
            if policy == "drop":
                break
        return Answer("", verdict.reason)

    def _judge(self, reply: Reply) -> Verdict:
        """The verdict on REPLY: an answer that is not known to be complete is not used."""
        unused = self.unused(reply)
        if unused or self.structure is None:
            return unused or Verdict(reply.text)
        completion, complaint = self.structure.read(reply.text)
        if complaint:
            return Verdict("", INVALID, "on_invalid", complaint)
        return Verdict(completion) if completion.strip() else Verdict("", EMPTY, "on_empty")

    def unused(self, reply: Reply) -> Verdict | None:
        """The verdict on an answer that is unusable whatever its text; None if the text decides."""
        end = end_of(reply.finish_reason, self.also_whole)
        if reply.refusal or end is End.REFUSED or any(pattern.search(reply.text) for pattern in self.refusals):
            return Verdict("", REFUSED, "on_refusal")
        if end is End.CUT_OFF:
            return Verdict("", CUT_OFF, "on_cut_off")
        if end in (End.CALL, End.NOT_TEXT):
            return Verdict("", CALL if end is End.CALL else NOT_TEXT, "on_empty")
        if end in (End.UNKNOWN, End.FAILED):
            word = ascii_surrogates(" ".join((reply.finish_reason or "").split()))
            word = word if len(word) <= _LONGEST_REASON else word[:_LONGEST_REASON] + "…"
            return Verdict("", f"unknown finish_reason '{word}'", "on_cut_off")
        if end is End.UNTOLD:
            return Verdict("", UNTOLD, "on_cut_off")
        return None if reply.text.strip() else Verdict("", EMPTY, "on_empty")


def _way_out(verdict: Verdict) -> str:
    """The hint for a verdict whose policy is to fail."""
    way = f'teacher.{verdict.option} = "drop" leaves such rows out, counted'
    if verdict.reason == CUT_OFF:
        return f"increase teacher.max_tokens; or {way}"
    if verdict.option == "on_cut_off":
        return f"if such answers are complete, list the word in teacher.finish_reasons{_AS_NONE if verdict.reason == UNTOLD else ''}; {way}"
    return way


def _again(messages: list[Message], reply: Reply, complaint: str) -> list[Message]:
    """The same question, followed by the invalid answer and the complaint about it."""
    demand = f"This is not what was asked for: {complaint}\nAnswer again with the JSON alone, as the schema demands."
    return [*messages, {"role": "assistant", "content": ascii_surrogates(reply.text)}, {"role": "user", "content": demand}]


def _shown(reply: Reply, complaint: str | None) -> str:
    return complaint or shorten(reply.refusal or reply.text) + (f" (finish_reason {reply.finish_reason})" if reply.finish_reason else "")
