"""Answers of a batch while they are generated: what is said of each, and where each ends, independently of the others."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from stages.chat.questions import Questions
    from stages.predict.exam import Question
    from stages.tokens.encoder import Encoder

_UNFINISHED = "\ufffd"
"""What a tokenizer decodes the first bytes of a character to."""


@dataclass
class Interruption:
    """Which answers shall end: all that are being generated, or those to single questions."""

    asked: bool = False
    cancelled: set[int] = field(default_factory=set)
    """Numbers of questions."""


class Enough(Exception):
    """Every answer of the batch is complete."""


@dataclass
class Answer:
    """One answer of a batch."""

    question: "Question"
    encoder: "Encoder"
    asking: "Questions"
    ends: tuple[int, ...]
    """Ids of the end tokens."""
    limit: int
    """Maximum number of tokens."""
    say: Callable[[Mapping[str, Any]], None]
    """Receives the events of this answer."""
    complete: Callable[["Answer"], None]
    """Is called once, when the answer is complete; not if it is cancelled."""
    number: int | None = None
    stop: tuple[str, ...] = ()
    """Texts that end the answer and are no part of it."""
    stream: Literal["text", "answer"] | None = None
    """What is said as it grows: the whole text, the answer without reasoning, or nothing."""
    reasoning_end: str = ""
    """The text that ends the reasoning of an answer; empty if the format has none."""
    alternatives: int | None = None
    """The number of other tokens at each position whose log probabilities are kept; None: none are kept at all."""
    ids: list[int] = field(default_factory=list)
    is_complete: bool = False
    interrupted: bool = False
    stopped: str | None = None
    """The text before the first stop text, if there is one."""
    logprobs: list[dict[str, Any]] = field(default_factory=list)
    _said: str = ""
    _logprobs_said: int = 0
    _distribution: Any = None

    def read(self, ids: Sequence[int]) -> None:
        """Take note of IDS, all tokens so far, and complete the answer at an end token, a stop text or the limit."""
        if self.is_complete:
            return
        self.ids = list(ids)
        self.note(ids)
        text = self.text() if self.stop or self.stream else ""
        found = [position for one in self.stop if (position := text.find(one)) >= 0]
        if found:
            self.stopped = text[: min(found)]
        if found or len(ids) >= self.limit or (ids and ids[-1] in self.ends):
            self.finish()
        elif self.stream and not text.endswith(_UNFINISHED):
            self.tell(self._visible(text))

    def finish(self) -> None:
        """Complete the answer with the tokens so far."""
        self.is_complete = True
        if self.stopped is not None:
            while self.logprobs and len(self._decoded(self.ids[: len(self.logprobs)])) > len(self.stopped):
                self.logprobs.pop()
        self.complete(self)

    def text(self) -> str:
        """The text of the tokens so far, without end tokens."""
        return self._decoded([one for one in self.ids if one not in self.ends])

    def _decoded(self, ids: Sequence[int]) -> str:
        return self.encoder.decode([list(ids)])[0]

    def _visible(self, text: str) -> str:
        """The part of TEXT that belongs to the answer whatever follows."""
        text = text[: len(text) - max((_begun(text, one) for one in self.stop), default=0)]
        if self.stream == "text" or not self.reasoning_end:
            return text
        return self.asking.split(text)[1] if self.reasoning_end in text else ""

    def tell(self, text: str) -> None:
        """Say what TEXT, a longer part of what is streamed, has more than what was said before."""
        if self.stream and text != self._said and text.startswith(self._said):
            self.say({"event": "text", "text": text[len(self._said) :], **self.new_logprobs()})
            self._said = text

    def new_logprobs(self) -> dict[str, Any]:
        """The log probabilities that were not said yet, as a part of an event."""
        if self.alternatives is None:
            return {}
        found = self.logprobs[self._logprobs_said :]
        self._logprobs_said = len(self.logprobs)
        return {"logprobs": found}

    def expect(self, distribution: Any) -> None:
        """Take note of the log probabilities of the next token (float [vocabulary])."""
        self._distribution = distribution

    def note(self, ids: Sequence[int]) -> None:
        """Keep the log probabilities of the last token of IDS; an end token has none."""
        if self.alternatives is None or self._distribution is None or len(ids) == len(self.logprobs) or ids[-1] in self.ends:
            return
        best = self._distribution.topk(self.alternatives) if self.alternatives else None
        top = zip(best.indices.tolist(), best.values.tolist(), strict=True) if best else ()
        chosen = ids[-1]
        self.logprobs.append(
            {
                "text": self._one(chosen),
                "logprob": float(self._distribution[chosen]),
                "top": [{"text": self._one(one), "logprob": value} for one, value in top],
            }
        )

    def _one(self, token: int) -> str:
        return self.encoder.decode([[token]], inside=True)[0]


def _begun(text: str, stop: str) -> int:
    """The number of characters at the end of TEXT that may be the beginning of STOP."""
    return next((size for size in range(min(len(stop) - 1, len(text)), 0, -1) if text.endswith(stop[:size])), 0)


class Watcher:
    """The last logits processor of a batch: reads every answer as it grows, and lets complete ones generate end tokens only.

    The scores of the other rows stay as they are.
    """

    def __init__(self, answers: Sequence[Answer], first: int, interruption: Interruption) -> None:
        """FIRST is the column at which the answers begin."""
        self._answers, self._first, self._interruption = answers, first, interruption

    def record(self, input_ids: Any, scores: Any) -> Any:
        """The first logits processor: keeps the model's own distributions of answers that want them; SCORES as they are."""
        for number, answer in enumerate(self._answers):
            if answer.alternatives is not None and not answer.is_complete:
                answer.note(input_ids[number, self._first :].tolist())
                answer.expect(scores[number].float().log_softmax(-1).cpu())
        return scores

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        """SCORES [rows, vocabulary] after INPUT_IDS [rows, length], the ids so far; raises Enough if no answer goes on."""
        for ids, answer in zip(input_ids[:, self._first :].tolist(), self._answers, strict=True):
            if answer.number in self._interruption.cancelled:
                answer.is_complete = True
            elif not answer.is_complete:
                # The last tokens were read already where their distribution was noted.
                answer.read(ids)
                if self._interruption.asked and not answer.is_complete:
                    answer.interrupted = True
                    answer.finish()
        complete = [number for number, answer in enumerate(self._answers) if answer.is_complete]
        if len(complete) == len(self._answers):
            raise Enough
        if complete:
            scores = scores.clone()
            scores[complete] = -float("inf")
            scores[complete, self._answers[0].ends[0]] = 0
        return scores
