"""Checks of templates: that the columns that a task uses exist in its source, if these are known, and that a chat template is valid."""

from collections.abc import Iterator, Mapping
from functools import cache
from typing import TYPE_CHECKING

from engine.core.errors import Problem, UserError, did_you_mean
from engine.spec.references import NAMES, PLAIN_TEMPLATE
from stages.generate.sources.task import TaskRows

if TYPE_CHECKING:
    from engine.spec.sections import Spec, Task

Place = tuple[str | int, ...]


def unknown_fields(spec: "Spec", name: str) -> Iterator[Problem]:
    """A problem for each column that task NAME of SPEC uses and its source does not have."""
    task = spec.experiment.tasks[name]
    known = _known_columns(task, spec.experiment.tasks)
    if known is None:
        return
    for place, field in _needed(task):
        if field not in known:
            what = f"task '{name}' uses column '{field}', which its source does not have"
            yield Problem(what, spec.where("tasks", name, *place), did_you_mean(field, known))


def _known_columns(task: "Task", tasks: "Mapping[str, Task]") -> frozenset[str] | None:
    """The columns of TASK's source; None if only reading it can tell."""
    source = task.source
    found: tuple[str, ...] | None = source.known_columns()
    if isinstance(source, TaskRows) and source.task in tasks and tasks[source.task].teacher:
        found = ("id", "group", "system", "prompt", "completion", "references", *tasks[source.task].carry)
    return None if found is None or task.layout else frozenset((*found, *source.columns))


def _needed(task: "Task") -> Iterator[tuple[Place, str]]:
    """The columns that the task uses, each with the place in the task that uses it."""
    templates = [(("prompts", index), prompt) for index, prompt in enumerate(task.prompts)]
    for place, template in [*templates, (("system",), task.system)]:
        if isinstance(template, str):
            yield from ((place, field) for field in sorted(_fields(template)))
    for column in task.teacher.columns() if task.teacher else ():
        yield ("teacher",), column
    single = {("split", "group_by"): task.split.group_by, ("split", "column"): task.split.column}
    if task.few_shot:
        single[("few_shot", "answer")] = task.few_shot.answer
    yield from ((place, column) for place, column in single.items() if column)
    yield from ((("carry", index), column) for index, column in enumerate(task.carry))


def broken_chat_template(spec: "Spec") -> Iterator[Problem]:
    """The problem of a chat template written in SPEC that is not valid Jinja."""
    template = getattr(spec.experiment.tokenization.format, "template", None)
    if template is None:
        return
    from stages.chat.templates import ChatTemplate

    try:
        ChatTemplate(template, "tokenization.format.template", {}, None)
    except UserError as error:
        (problem,) = error.problems
        shown = f"line {problem.where.line} of the template is {problem.where.source!r}" if problem.where else None
        yield Problem(problem.what, spec.where("tokenization", "format", "template"), shown)


@cache
def _fields(template: str) -> frozenset[str]:
    """The columns that are required to render a template."""
    if PLAIN_TEMPLATE.fullmatch(template):
        return frozenset(NAMES.findall(template))
    from stages.rows.templates import Template

    return Template(template, "").required
