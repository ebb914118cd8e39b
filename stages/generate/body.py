"""The work of generate: each row of the source gets a prompt from a template and a completion from the teacher."""

from collections import Counter
from collections.abc import Iterable, Iterator

from engine.errors import Location, UserError, did_you_mean
from stages.common.hashing import canonical, choice, content_hash
from stages.common.job import Job, Metrics
from stages.common.jsonl import write_rows
from stages.common.progress import progress
from stages.common.templates import Prompts
from stages.common.text import is_well_formed
from stages.generate import Parameters

Row = dict[str, object]

_ID_DIGITS = 16


def run(parameters: Parameters, job: Job) -> Metrics:
    """Write `rows.jsonl` with id, group, prompt and completion of each row; raises UserError where no row is left."""
    generation = Generation(parameters)
    source = parameters.source.read(dict(job.inputs))
    rows_out = write_rows(job.output / "rows.jsonl", generation.rows(progress(source, job.name)))
    metrics = generation.metrics()
    assert metrics["rows_out"] == rows_out
    assert metrics["rows_in"] == rows_out + sum(metrics["left_out"].values())
    if not rows_out:
        reasons = ", ".join(f"{count} for {reason}" for reason, count in metrics["left_out"].items())
        raise UserError("no row is left to train on", hint=f"left out: {reasons}" if reasons else "the source has no rows")
    return metrics


class Generation:
    """Makes the rows of a task and counts what happened to them."""

    def __init__(self, parameters: Parameters) -> None:
        self.parameters = parameters
        self.prompts = Prompts(parameters.prompts)
        self.rows_in = self.rows_out = self.duplicates = self.prompt_characters = self.completion_characters = 0
        self.left_out: Counter[str] = Counter()
        self.prompts_used: Counter[int] = Counter()
        self._occurrences: Counter[str] = Counter()
        self._pairs: set[str] = set()

    def rows(self, source: Iterable[tuple[Location, Row]]) -> Iterator[Row]:
        """The rows of SOURCE that are not left out, each with id, group, prompt and completion."""
        for where, row in source:
            self.rows_in += 1
            content = content_hash(row)
            made = {"id": self._id(content), "group": self._group(row, content, where)}
            index = choice(len(self.prompts), "prompt", self.parameters.seed, content)
            prompt, completion = self.prompts.render(index, row, where), self._answer(row, where)
            if reason := self._unfit(index, prompt, completion):
                self.left_out[reason] += 1
                continue
            self._count(index, prompt, completion)
            yield {**made, "prompt": prompt, "completion": completion}

    def _answer(self, row: Row, where: Location) -> str:
        """The completion; an empty answer stays empty, so that it is left out rather than trained on as a prefix alone."""
        answer = self.parameters.teacher.answer(row, where)
        return self.parameters.answer_prefix + answer if answer.strip() else answer

    def _id(self, content: str) -> str:
        """The first digits of the content hash; a repeated row's id is decided by how often the row came before, too."""
        before = self._occurrences[content]
        self._occurrences[content] += 1
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

    def _unfit(self, index: int, prompt: str, completion: str) -> str | None:
        """Why a row is left out, if it is."""
        if not completion.strip():
            return "empty completion"
        if not prompt and self.prompts.sources[index]:
            return "empty prompt"
        if not is_well_formed(prompt + completion):
            return "lone surrogate"
        return None

    def _count(self, index: int, prompt: str, completion: str) -> None:
        self.rows_out += 1
        self.prompts_used[index] += 1
        self.prompt_characters += len(prompt)
        self.completion_characters += len(completion)
        pair = content_hash(prompt, completion)
        self.duplicates += pair in self._pairs
        self._pairs.add(pair)

    def metrics(self) -> Metrics:
        """What was counted."""
        return {
            "rows_in": self.rows_in,
            "rows_out": self.rows_out,
            "left_out": dict(sorted(self.left_out.items())),
            "duplicates": self.duplicates,
            "prompts": {str(index): self.prompts_used[index] for index in range(len(self.prompts))},
            "prompt_characters": self.prompt_characters,
            "completion_characters": self.completion_characters,
        }
