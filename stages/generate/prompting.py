"""Renders the prompts of a task: the template of each row, its system prompt, and few-shot examples."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from heapq import nsmallest
from pathlib import Path

from engine.core.errors import Location, UserError
from stages.generate import Parameters
from stages.generate.prompts import FewShot, TemplateFile
from stages.generate.selection import Row, lacking
from stages.generate.teachers.gold import gold_texts
from stages.process.hashing import choice, content_hash
from stages.process.job import Job
from stages.rows.template_files import read_template
from stages.rows.templates import Template, is_empty


@dataclass(frozen=True, slots=True)
class Prompt:
    """The rendered prompt of a row."""

    template: int
    system: str
    prompt: str
    empty: tuple[str, str] | None
    """The template and the empty field that it needs; then nothing is rendered. None otherwise."""


class Prompting:
    """The templates of a task; raises UserError if one is not valid Jinja or its file cannot be read."""

    def __init__(self, parameters: Parameters, job: Job) -> None:
        self.seed = parameters.seed
        self.templates = [_template(given, f"prompts[{index}]", job, f"prompts/{index}") for index, given in enumerate(parameters.prompts)]
        self.system = _template(parameters.system, "system", job, "system")
        self.fields = frozenset[str]().union(self.system.fields, *(template.fields for template in self.templates))

    def render(self, row: Row, content: str, where: Location, allow_empty: bool) -> Prompt:
        """The prompt of ROW, whose content hash is CONTENT; raises UserError if a template cannot be rendered."""
        index = choice(len(self.templates), "prompt", self.seed, content)
        for template in () if allow_empty else (self.templates[index], self.system):
            if (field := template.empty_field(row)) is not None:
                return Prompt(index, "", "", (template.name, field))
        return Prompt(index, self.system.render(row, where), self.templates[index].render(row, where), None)


def _template(given: str | TemplateFile, name: str, job: Job, role: str) -> Template:
    if isinstance(given, str):
        return Template(given, name, lacking)
    return Template(_read(job.inputs[role]), given.file, lacking)


def _read(path: Path) -> str:
    """A template's text, without the line end at the end of the file."""
    return read_template(path).removesuffix("\n").removesuffix("\r")


@dataclass(frozen=True, slots=True)
class Example:
    """A row of the train split that may serve as a few-shot example."""

    content: str
    group: str
    row: Row
    where: Location
    answer: str


class Examples:
    """The few-shot examples of a task, chosen per row by hashes of both, so that adding rows changes few choices."""

    def __init__(self, few_shot: FewShot, answer_prefix: str, candidates: Iterable[Example]) -> None:
        self.few_shot, self.answer_prefix = few_shot, answer_prefix
        # Rows with equal content would count twice among the smallest hashes.
        unlike = _first_of_each(candidates)
        self._pool = nsmallest(few_shot.pool, unlike, key=lambda example: content_hash("pool", few_shot.seed, example.content))

    def of(self, content: str, group: str, where: Location) -> list[Example]:
        """The examples for the row with this CONTENT, none of them from its own GROUP."""
        others = (example for example in self._pool if example.group != group)
        seed = self.few_shot.seed
        found = nsmallest(self.few_shot.count, others, key=lambda example: content_hash("example", seed, content, example.content))
        if len(found) < self.few_shot.count:
            what = f"few_shot.count is {self.few_shot.count}, but outside this row's group the train split has only {len(found)} examples"
            raise UserError(what, where, "decrease few_shot.count, or give the task more rows")
        return found

    def before(self, rendered: Iterable[tuple[str, Example]], question: str) -> str:
        """QUESTION preceded by its examples, each as rendered prompt and answer."""
        shots = (f"{prompt}{self.answer_prefix}{example.answer}{self.few_shot.separator}" for prompt, example in rendered)
        return "".join([*shots, question])


def _first_of_each(candidates: Iterable[Example]) -> Iterator[Example]:
    seen: set[int] = set()
    for example in candidates:
        key = int(example.content[:16], 16)
        if key not in seen:
            seen.add(key)
            yield example


def example_answer(few_shot: FewShot, row: Row, where: Location) -> str | None:
    """The answer of ROW as an example, None if it has none; raises UserError if the column is missing or not text."""
    if few_shot.answer not in row:
        raise UserError(f"this row has no column '{few_shot.answer}' (few_shot.answer)", where, lacking(few_shot.answer, row))
    value = row[few_shot.answer]
    if is_empty(value):
        return None
    return gold_texts(value, f"column '{few_shot.answer}' (few_shot.answer)", where)[0]
