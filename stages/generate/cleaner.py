"""Applies the cleaning rules to each row, in order, and counts the rows that each removes."""

from dataclasses import dataclass, field

from stages.generate.cleaning.rule import Check, FilesOf, Rule, Texts
from stages.process.job import Job, Metrics
from stages.rows.text import ascii_surrogates

_EXAMPLES, _SHOWN = 3, 160


@dataclass
class Asked:
    """One rule with its state and counts."""

    rule: Rule
    check: Check
    seen: int = 0
    left_out: int = 0
    examples: list[dict[str, str]] = field(default_factory=list)

    def reason(self, identity: str, texts: Texts) -> str | None:
        """Why the row is left out; None if it stays."""
        self.seen += 1
        text = texts.of(self.rule.of)
        if found := self.check(text):
            self.left_out += 1
            if len(self.examples) < _EXAMPLES:
                shown = ascii_surrogates(text if len(text) <= _SHOWN else text[:_SHOWN] + "…")
                self.examples.append({"id": identity, "reason": found, "text": shown})
        return found


class Cleaner:
    """The rules of a task."""

    def __init__(self, rules: tuple[Rule, ...], job: Job) -> None:
        self._asked = [Asked(rule, rule.check(_files(job, index))) for index, rule in enumerate(rules)]

    def before_asking(self, identity: str, texts: Texts) -> str | None:
        """The first reason of the rules about prompts, which apply before the teacher answers, since answers may cost money."""
        return self._first(identity, texts, prompts=True)

    def after_asking(self, identity: str, texts: Texts) -> str | None:
        """The first reason of the other rules."""
        return self._first(identity, texts, prompts=False)

    def of_rejected(self, identity: str, texts: Texts) -> str | None:
        """The first reason of the rules that judge a row alone about the rejected answer of a pair; it is not compared with other rows."""
        chosen = (asked for asked in self._asked if asked.rule.of != "prompt" and not asked.rule.compares_rows)
        return next((f"rejected answer: {reason}" for asked in chosen if (reason := asked.reason(identity, texts))), None)

    def _first(self, identity: str, texts: Texts, prompts: bool) -> str | None:
        chosen = (asked for asked in self._asked if (asked.rule.of == "prompt") == prompts)
        return next((reason for asked in chosen if (reason := asked.reason(identity, texts))), None)

    def metrics(self) -> list[Metrics]:
        """For each rule: its kind, the number of rows it saw and removed, and the first removed rows."""
        return [
            {"kind": asked.rule.model_dump()["kind"], "of": asked.rule.of, "seen": asked.seen}
            | {"taken": asked.left_out, "examples": asked.examples}
            for asked in self._asked
        ]


def _files(job: Job, index: int) -> FilesOf:
    return lambda name: job.files(f"cleaning/{index}/{name}")
