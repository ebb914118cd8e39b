"""The steps in which a judge scores predictions: generate steps with a chat teacher, one per file of predictions."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from engine.compile.compilation import Compilation, locate_below
from engine.compile.task_inputs import Makers, needed_by
from engine.core.errors import Location, Problem, did_you_mean
from engine.core.graph import Input, Step
from engine.spec.judge import PROMPT, Judge
from stages import generate
from stages.evaluate.metrics.judge_scores import JudgeScores
from stages.generate.sources.predictions import COLUMNS, Predictions

if TYPE_CHECKING:
    from engine.spec.sections import Spec

_ID = "id"
_CARRIED_FIELD = re.compile(r"""\bfields(?:\.|\[\s*["'])(\w+)""")


@dataclass(frozen=True)
class Answers:
    """A file of predictions: its task, the model's name as used in step names, and the spec whose step produces it."""

    task: str
    whose: str
    spec: "Spec"
    file: Input


def judge_metric(judge: Judge) -> JudgeScores:
    """The metric that `evaluate` computes from the scores of JUDGE."""
    return JudgeScores(scores=judge.scores, lowest=judge.lowest, highest=judge.highest)


def add_judgements(c: Compilation, spec: "Spec", answers: Mapping[str, Answers], rows: Mapping[str, Input]) -> dict[str, Input]:
    """Add a judge step for each of ANSWERS (by role), with the ROWS by task; returns the inputs of `evaluate`, by role."""
    judge = spec.experiment.evaluation.judge
    if judge is None:
        return {}
    c.problems += _unknown_names(spec, judge, {one.task for one in answers.values()})
    found = {}
    for role, one in answers.items():
        step = _step(c, spec, judge, one, rows[one.task])
        found[f"judge/{role}"] = c.add(step, one.spec).output("rows.jsonl")
    return found


def _step(c: Compilation, spec: "Spec", judge: Judge, answers: Answers, rows: Input) -> Step:
    parameters = generate.Parameters(
        source=Predictions(task=answers.task),
        prompts=(judge.prompt,),
        system=judge.instruction(),
        # An empty prediction is scored, too.
        empty_fields="allow",
        teacher=judge.requested(),
        carry=(_ID,),
    )
    section = ("evaluation", "judge")
    inside = locate_below(spec, section)

    def locate(path: tuple[str | int, ...]) -> Location | None:
        return inside(("prompt", *path[2:]) if path[:1] == ("prompts",) else path)

    reads, wrong = needed_by(spec, parameters, locate, (), _NO_MAKERS)
    c.problems += wrong
    reads |= {"source/0": answers.file, "source/1": rows}
    name = "-".join(part for part in ("judge", answers.whose, answers.task, judge.name) if part)
    description = f"Judge scores of the predictions of {answers.whose} on {answers.task}."
    return Step(name, generate.KIND, parameters, reads, description, spec.where(*section), locate)


def _never(*asked: object) -> Step:
    raise AssertionError(f"a judge needs no steps other than predictions: {asked}")


_NO_MAKERS = Makers(_never, _never)


def _unknown_names(spec: "Spec", judge: Judge, tasks: set[str]) -> Iterator[Problem]:
    """A problem for each unknown variable in the templates of JUDGE, and for each column that a task does not carry."""
    from stages.rows.templates import Template

    for key, template in (("prompt", judge.prompt), ("system", judge.system)):
        if not isinstance(template, str) or template == PROMPT:
            continue
        where = spec.where("evaluation", "judge", key)
        for name in sorted(Template(template, key).fields - set(COLUMNS)):
            hint = f"{did_you_mean(name, COLUMNS)} (for a column of the task, write fields.{name})"
            yield Problem(f"unknown variable '{name}' in the judge's {key}", where, hint)
        for task in sorted(tasks):
            carried = spec.experiment.tasks[task].carry
            for name in dict.fromkeys(_CARRIED_FIELD.findall(template)):
                if name not in carried:
                    what = f"the judge's {key} uses the column '{name}', which is not in the carry of task '{task}'"
                    yield Problem(what, where, f'add it: tasks.{task}.carry = ["{name}"]')
