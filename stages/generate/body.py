"""The work of generate: each row of the source gets a prompt from a template and a completion from the teacher."""

from collections import Counter, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from engine.errors import Location, UserError, did_you_mean
from stages.common.hashing import canonical, choice, content_hash
from stages.common.job import Job, Metrics
from stages.common.jsonl import write_rows
from stages.common.progress import progress
from stages.common.templates import Prompts
from stages.common.text import is_well_formed
from stages.generate import Parameters
from stages.generate.question import Answer, Question, Row, Tally

_ID_DIGITS = 16


def run(parameters: Parameters, job: Job) -> Metrics:
    """Write `rows.jsonl` with id, group, prompt and completion of each row; raises UserError where no row is left."""
    generation = Generation(parameters, job)
    source = parameters.source.read(dict(job.inputs))
    rows_out = write_rows(job.output / "rows.jsonl", generation.rows(progress(source, job.name)))
    metrics = generation.metrics()
    assert metrics["rows_out"] == rows_out
    assert metrics["rows_in"] == rows_out + sum(metrics["left_out"].values())
    if not rows_out:
        reasons = ", ".join(f"{count} for {reason}" for reason, count in metrics["left_out"].items())
        raise UserError("no row is left to train on", hint=f"left out: {reasons}" if reasons else "the source has no rows")
    return metrics


@dataclass(frozen=True, slots=True)
class Draft:
    """A row that waits for its completion."""

    id: str
    group: str
    template: int
    question: Question


class Generation:
    """Makes the rows of a task and counts what happened to them; memory grows by some tens of bytes a row."""

    def __init__(self, parameters: Parameters, job: Job) -> None:
        self.parameters, self.job = parameters, job
        self.prompts = Prompts(parameters.prompts)
        self.tally = Tally()
        self.rows_in = self.rows_out = self.duplicates = self.prompt_characters = self.completion_characters = 0
        self.left_out: Counter[str] = Counter()
        self.prompts_used: Counter[int] = Counter()
        # 64 bits of a hash, as numbers: texts would take three times the room.
        self._occurrences: dict[int, int] = {}
        self._pairs: set[int] = set()
        self._asked: deque[Draft] = deque()

    def rows(self, source: Iterable[tuple[Location, Row]]) -> Iterator[dict[str, object]]:
        """The rows of SOURCE that are not left out, each with id, group, prompt and completion, in the order of the source."""
        for answer in self.parameters.teacher.answers(self._questions(source), self.job, self.tally):
            draft = self._asked.popleft()
            if made := self._row(draft, answer):
                yield made
        assert not self._asked, "a teacher answers every question"

    def _questions(self, source: Iterable[tuple[Location, Row]]) -> Iterator[Question]:
        """What the teacher is asked; it may ask for many questions before it gives the first answer."""
        for where, row in source:
            self.rows_in += 1
            draft = self._draft(row, where)
            if reason := self._unaskable(draft):
                self.left_out[reason] += 1
            else:
                self._asked.append(draft)
                yield draft.question

    def _draft(self, row: Row, where: Location) -> Draft:
        content = content_hash(row)
        index = choice(len(self.prompts), "prompt", self.parameters.seed, content)
        identity, group = self._id(content), self._group(row, content, where)
        return Draft(identity, group, index, Question("", self.prompts.render(index, row, where), row, where))

    def _row(self, draft: Draft, answer: Answer) -> dict[str, object] | None:
        """The finished row, or None where it is left out."""
        prompt, completion = draft.question.prompt, answer.text
        if reason := answer.left_out or _unfit(completion):
            self.left_out[reason] += 1
            return None
        completion = self.parameters.answer_prefix + completion
        self._count(draft.template, prompt, completion)
        return {"id": draft.id, "group": draft.group, "prompt": prompt, "completion": completion}

    def _id(self, content: str) -> str:
        """The first digits of the content hash; a repeated row's id is decided by how often the row came before, too."""
        key = int(content[:_ID_DIGITS], 16)
        before = self._occurrences.get(key, 0)
        self._occurrences[key] = before + 1
        return (content_hash(content, before) if before else content)[:_ID_DIGITS]

    def _group(self, row: Row, content: str, where: Location) -> str:
        """The value of the group column, as text; without one, each content is a group, so that repeated rows stay together."""
        column = self.parameters.group_by
        if column is None:
            return content
        if column not in row:
            raise UserError(f"this row has no column '{column}' to group by", where, did_you_mean(column, row))
        value = row[column]
        if value is None:
            raise UserError(f"column '{column}' is null, which is no group", where, "give every row a value, or leave out split.group_by")
        return value if isinstance(value, str) else canonical(value).decode()

    def _unaskable(self, draft: Draft) -> str | None:
        """Why no teacher is asked about a row, if none is."""
        if not draft.question.prompt and self.prompts.sources[draft.template]:
            return "empty prompt"
        return None if is_well_formed(draft.question.prompt) else "lone surrogate"

    def _count(self, template: int, prompt: str, completion: str) -> None:
        self.rows_out += 1
        self.prompts_used[template] += 1
        self.prompt_characters += len(prompt)
        self.completion_characters += len(completion)
        pair = int(content_hash(prompt, completion)[:_ID_DIGITS], 16)
        self.duplicates += pair in self._pairs
        self._pairs.add(pair)

    def metrics(self) -> Metrics:
        """What was counted."""
        metrics: Metrics = {
            "rows_in": self.rows_in,
            "rows_out": self.rows_out,
            "left_out": dict(sorted(self.left_out.items())),
            "duplicates": self.duplicates,
            "prompts": {str(index): self.prompts_used[index] for index in range(len(self.prompts))},
            "prompt_characters": self.prompt_characters,
            "completion_characters": self.completion_characters,
        }
        if self.tally.counted:
            metrics["teacher"] = self.tally.counted
        if self.tally.measured:
            metrics["_measured"] = self.tally.measured
        return metrics


def _unfit(completion: str) -> str | None:
    """Why an answer is not trained on, if it is not."""
    if not completion.strip():
        return "empty completion"
    return None if is_well_formed(completion) else "lone surrogate"
