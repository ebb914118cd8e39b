"""What is asked about one row until it is settled; it asks for replies and knows no network, so that all who need it share it."""

import re
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import Literal

from engine.errors import UserError
from stages.common.text import shorten
from stages.generate.asking.reply import Reply
from stages.generate.asking.request import Message, Request, Shape, opening
from stages.generate.asking.schema import Structure
from stages.generate.question import Answer, Question

Policy = Literal["retry", "drop", "fail"]
Conversation = Generator[Request, Reply, Answer]

REFUSED, EMPTY, CUT_OFF, INVALID = "refused", "empty answer", "cut off", "invalid JSON"


@dataclass(frozen=True)
class Rules:
    """What an answer must be, and what happens to one that is not so."""

    shape: Shape
    policies: Mapping[str, Policy]
    attempts: int = 1
    refusals: tuple[re.Pattern[str], ...] = ()
    structure: Structure | None = None

    def converse(self, question: Question) -> Conversation:
        """Ask about one row: yields requests, is sent replies, returns the answer; raises UserError where a policy says to fail."""
        messages = opening(question.system, question.prompt)
        for attempt in range(self.attempts):
            reply = yield self.shape.request(messages, attempt)
            text, reason, complaint = self._judge(reply)
            if complaint:
                reply = yield self.shape.request(_again(messages, reply, complaint), attempt)
                text, reason, complaint = self._judge(reply)
            if reason is None:
                return Answer(text)
            policy = self.policies[reason]
            if policy == "fail":
                raise UserError(
                    f"{reason}: {_shown(reply, complaint)}", question.where, f"{_TO_DROP[reason]} leaves such rows out, counted"
                )
            if policy == "drop":
                break
        return Answer("", reason)

    def _judge(self, reply: Reply) -> tuple[str, str | None, str | None]:
        """The completion, why it is not used, and what to tell the model about it."""
        text = reply.text
        if reply.refusal or reply.finish_reason == "content_filter" or any(pattern.search(text) for pattern in self.refusals):
            return "", REFUSED, None
        if reply.finish_reason == "length":
            return "", CUT_OFF, None
        if not text.strip():
            return "", EMPTY, None
        if self.structure is None:
            return text, None, None
        completion, complaint = self.structure.read(text)
        return completion, INVALID if complaint else None, complaint


_TO_DROP = {
    REFUSED: 'on_refusal = "drop"',
    EMPTY: 'on_empty = "drop"',
    CUT_OFF: 'a larger max_tokens mends it; on_cut_off = "drop"',
    INVALID: 'on_invalid = "drop"',
}


def _again(messages: list[Message], reply: Reply, complaint: str) -> list[Message]:
    """The same question with the faulty answer and what is wrong with it."""
    demand = f"This is not what was asked for: {complaint}\nAnswer again with the JSON alone, as the schema demands."
    return [*messages, {"role": "assistant", "content": reply.text}, {"role": "user", "content": demand}]


def _shown(reply: Reply, complaint: str | None) -> str:
    return complaint or shorten(reply.refusal or reply.text) + (f" (finish_reason {reply.finish_reason})" if reply.finish_reason else "")
