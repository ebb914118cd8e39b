"""The progress line of a session, and the counts of this run for the provenance."""

import sys
from collections import Counter
from time import monotonic

from engine.core.errors import visible
from stages.generate.asking.batches import BatchSession
from stages.generate.asking.session import Session
from stages.generate.question import Answer
from stages.process.job import Metrics
from stages.process.progress import Progress, progress

_SECONDS_BETWEEN_NOTES = 0.2


class Status:
    """Shows rows done, rate, requests in flight, retries, tokens and cost while a session runs."""

    def __init__(self, name: str, session: Session | BatchSession, priced: bool, expected: int | None = None) -> None:
        self._session, self._priced = session, priced
        self._bar: Progress[Answer] = progress(iter(()) if expected is None else expected, name, "answers")
        self._started = monotonic()
        self._unsaid, self._said = 0, monotonic()
        self._name, self._unknown_ends = name, Counter[str]()

    def answered(self, answer: Answer) -> None:
        """Count a settled row; the line is updated a few times per second."""
        if answer.left_out and "finish_reason" in answer.left_out:
            self._unknown_ends[answer.left_out] += 1
        self._unsaid += 1
        if monotonic() - self._said >= _SECONDS_BETWEEN_NOTES:
            self._say()

    def _say(self) -> None:
        self._bar.update(self._unsaid, self.note())
        self._unsaid, self._said = 0, monotonic()

    def note(self) -> str:
        """Everything on the line but the number of rows and the time left."""
        session, spending = self._session, self._session.spending
        done, seconds = self._session.counts.answered, monotonic() - self._started
        # A terminal's bar shows the rate itself.
        rate = [f"{done / seconds:.1f}/s"] if done and seconds and not sys.stderr.isatty() else []
        parts = [*rate, f"{session.in_flight} in flight", f"{session.counts.cached:,} cached"]
        if retries := sum(session.counts.retries.values()):
            parts.append(f"{retries:,} retries")
        if spending.requests:
            parts.append(f"{spending.tokens:,} tokens")
        if self._priced:
            parts.append(f"cost {spending.cost:.2f}")
        return ", ".join(parts)

    def close(self) -> None:
        """Print the final state."""
        if self._unsaid:
            self._say()
        self._bar.close()
        if self._unknown_ends:
            told = ", ".join(f"{count:,} with {reason}" for reason, count in sorted(self._unknown_ends.items()))
            hint = "if such answers are complete, list the endpoint's words in teacher.finish_reasons"
            print(visible(f"{self._name}: answers not known to be complete were not used: {told}; {hint}"), file=sys.stderr)

    def measured(self) -> Metrics:
        """Usage of this run; another run of the same step may use nothing."""
        counts, spending = self._session.counts, self._session.spending
        return {
            "requests": spending.requests,
            "rows_from_cache": counts.cached,
            "outcomes": dict(sorted(counts.outcomes.items())),
            "retries": dict(sorted(counts.retries.items())),
            "prompt_tokens": spending.prompt_tokens,
            "completion_tokens": spending.completion_tokens,
            "answers_with_estimated_tokens": spending.estimated,
            "cost": round(spending.cost, 6) if self._priced else None,
        }
