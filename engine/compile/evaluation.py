"""The steps that evaluate an experiment: predictions of its model and of others on the same rows, a judge's scores, and metrics of all.

No prediction is made twice: if the evaluation of another experiment predicts the same rows with the same settings, its predictions are
read. Base models predict one task per step, shared by all experiments. The missing predictions of adapters come from one step, which
loads their common base once.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from engine.checks.context_length import long_answer
from engine.compile.compilation import Base, Compilation, Subject, TaskOf, chat_template, encoder_decoder, locate_below, narrow
from engine.compile.task_inputs import Makers, needed_by
from engine.core.errors import Location, Problem, did_you_mean
from engine.core.graph import Input, Step
from engine.core.names import BASE
from engine.core.part import Part
from engine.identity.text import canonical, recipe_of
from engine.spec.judge import Judge
from engine.spec.models import TrainedModel
from stages import evaluate, generate, predict
from stages.chat.markers import Markers
from stages.evaluate.metrics.judge_scores import JudgeScores
from stages.generate.sources.duels import COLUMNS as DUEL_COLUMNS
from stages.generate.sources.duels import Duels
from stages.generate.sources.predictions import COLUMNS as PREDICTION_COLUMNS
from stages.generate.sources.predictions import Predictions
from stages.tokenize.masks import Delimited

if TYPE_CHECKING:
    from engine.spec.sections import Spec
    from engine.spec.versus import Versus

_PROMPT_POLICIES: dict[str, Literal["drop", "truncate_prompt_left"]] = {"drop": "drop", "truncate_prompt_left": "truncate_prompt_left"}
"""Policies for over-long rows that also apply to prompts without a completion; with any other policy, a prompt that is too long is an
error."""

_ID = "id"
_CARRIED_FIELD = re.compile(r"""\bfields(?:\.|\[\s*["'])(\w+)""")
"""A carried column in a judge's template."""


@dataclass(frozen=True)
class Answers:
    """A file of predictions: its task, the model's name as used in step names, and the spec whose step produces it."""

    task: str
    whose: str
    spec: "Spec"
    file: Input


def _others(subject: Subject) -> tuple[str, ...]:
    """The experiments that a model is compared with; a list shared by several experiments may include the experiment itself."""
    return tuple(name for name in subject.spec.experiment.evaluation.compare if name != subject.name)


def add_evaluation(c: Compilation, subject: Subject, task_of: TaskOf, subject_of: Callable[[str], Subject]) -> Step:
    """Add the predict and evaluate steps of SUBJECT, and the predictions of the models that it is compared with; returns evaluate."""
    own = add_predictions(c, subject, task_of)
    section = subject.spec.experiment.evaluation
    tasks = _tasks(subject.spec)
    answers = {f"predictions/{task}": _answers(subject, own, task) for task in (*tasks, *section.held_out)}
    for name, found in _Comparison(c, subject, own, task_of, subject_of).answers().items():
        answers |= {f"compare/{name}/{task}": one for task, one in found.items()}
    reads = {role: one.file for role, one in answers.items()}
    rows = {task: own.inputs[_role(subject.spec, task)] for task in tasks}
    reads |= _add_judgements(c, subject.spec, {role: one for role, one in answers.items() if one.task in rows}, rows)
    reads |= _add_verdicts(c, subject.spec, answers, rows)
    judge = section.judge
    judged = [JudgeScores(scores=judge.scores, lowest=judge.lowest, highest=judge.highest)] if judge else []
    parameters = evaluate.Parameters(
        model=subject.stem,
        tasks=tasks,
        held_out=section.held_out,
        trained_on=subject.spec.experiment.trained_tasks,
        metrics=(*section.metrics, *judged),
        compare=_others(subject),
        statistics=section.statistics,
    )
    locate = locate_below(subject.spec, ("evaluation",), trained_on=("mixture", "tasks"), model=("experiment", "name"))
    where = subject.spec.where("evaluation")
    name, description = f"evaluate-{subject.stem}", f"Metrics of {subject.stem}."
    return c.add(Step(name, evaluate.KIND, parameters, reads, description, where, locate), subject.spec)


def add_predictions(c: Compilation, subject: Subject, task_of: TaskOf) -> Step:
    """Add the predict step of SUBJECT's evaluation."""
    spec = subject.spec
    tasks = (*_tasks(spec), *spec.experiment.evaluation.held_out)
    c.problems += [problem for task in tasks for problem in _unpredictable(subject, task)]
    reads = subject.reads()
    split = spec.experiment.evaluation.split
    reads |= {_role(spec, task): task_of(spec, task).output(f"{split}.jsonl") for task in tasks}
    return c.add(
        _step(spec, f"predict-{subject.stem}", _parameters(subject), reads, f"Predictions of {subject.stem} on the {split} rows."), spec
    )


def add_answers(
    c: Compilation, spec: "Spec", subject: Subject, name: str, reads: Mapping[str, Input], description: str, **otherwise: object
) -> Step:
    """Add step NAME of SPEC, in which the model of SUBJECT answers the rows among READS as in its evaluation, but for some parameters."""
    parameters = replace_fields(_parameters(subject), held_out=(), likelihood=False, **otherwise)
    return c.add(_step(subject.spec, name, parameters, {**subject.reads(), **reads}, description), spec)


def _role(spec: "Spec", task: str) -> str:
    """The role of a task's rows in a predict step."""
    return f"{spec.experiment.evaluation.split}/{task}"


def _step(spec: "Spec", name: str, parameters: predict.Parameters, reads: Mapping[str, Input], description: str) -> Step:
    locate = locate_below(
        spec,
        ("evaluation",),
        tasks=("tasks",),
        over_length=("tokenization", "over_length"),
        format=("tokenization", "format"),
        markers=("tokenization", "mask"),
        boundary=("tokenization", "boundary"),
        unrendered=("tokenization", "unrendered"),
        control_tokens_in_text=("tokenization", "control_tokens_in_text"),
        strip_reasoning=("tokenization", "mask", "reasoning"),
        likelihood=("evaluation", "metrics"),
    )
    return Step(name, predict.KIND, parameters, {**reads, **chat_template(spec)}, description, spec.where("evaluation"), locate)


def _tasks(spec: "Spec") -> tuple[str, ...]:
    return spec.experiment.evaluated_tasks


def _parameters(subject: Subject) -> predict.Parameters:
    spec = subject.spec
    experiment = spec.experiment
    over_length = experiment.tokenization.over_length
    return narrow(
        predict.Parameters,
        experiment.evaluation,
        tasks={task: predict.TaskPrediction(max_new_tokens=experiment.tasks[task].max_new_tokens) for task in _tasks(spec)},
        likelihood=any(getattr(metric, "needs_likelihood", False) for metric in experiment.evaluation.metrics),
        format=experiment.tokenization.format,
        markers=_markers(experiment.tokenization.mask),
        boundary=experiment.tokenization.boundary,
        unrendered=experiment.tokenization.unrendered,
        control_tokens_in_text=experiment.tokenization.control_tokens_in_text,
        strip_reasoning=getattr(experiment.tokenization.mask, "reasoning", None) == "strip",
        encoder_decoder=encoder_decoder(spec, subject.base),
        over_length=_PROMPT_POLICIES.get(over_length, "error"),
        batch_rows=experiment.resources.evaluation_batch,
        threads=experiment.resources.threads,
    )


def _markers(mask: Part) -> Markers | None:
    """The markers in the text of rows, which prompts need, too; None unless the mask uses markers."""
    return Markers(instruction=mask.instruction, response=mask.response) if isinstance(mask, Delimited) else None


def _answers(subject: Subject, step: Step, task: str) -> Answers:
    """The predictions of SUBJECT for TASK from STEP, the predict step of its evaluation."""
    return Answers(task, subject.stem, subject.spec, _predictions(step, task))


def _predictions(step: Step, task: str, folder: str = "") -> Input:
    return step.output(f"{folder}/predictions-{task}.jsonl" if folder else f"predictions-{task}.jsonl")


@dataclass(frozen=True)
class _Comparison:
    """Finds or adds the predictions of the models that an experiment is compared with."""

    c: Compilation
    subject: Subject
    own: Step
    task_of: TaskOf
    subject_of: Callable[[str], Subject]

    def answers(self) -> dict[str, dict[str, Answers]]:
        """Each model's predictions, by its name and task."""
        known = {name for name in _others(self.subject) if self._is_known(name)}
        found = {name: self._base() if name == BASE else self._existing(self.subject_of(name)) for name in sorted(known)}
        missing = {name: [task for task in self._all_tasks() if task not in existing] for name, existing in found.items()}
        for name, more in self._predict_missing({name: tasks for name, tasks in missing.items() if tasks}).items():
            found[name] |= more
        return found

    def _all_tasks(self) -> tuple[str, ...]:
        parameters = self._parameters
        return (*parameters.tasks, *parameters.held_out)

    @property
    def _parameters(self) -> predict.Parameters:
        assert isinstance(self.own.parameters, predict.Parameters)
        return self.own.parameters

    def _is_known(self, name: str) -> bool:
        problems = list(self._naming_problems(name))
        # Without some of the specs, an unknown name may be that of one of them.
        self.c.problems += problems if self.c.whole or name in self.c.specs or name == BASE else []
        return not problems

    def _naming_problems(self, name: str) -> Iterator[Problem]:
        spec = self.subject.spec
        where = spec.where("evaluation", "compare", spec.experiment.evaluation.compare.index(name))
        model = spec.experiment.model
        started = model.experiment if isinstance(model, TrainedModel) else None
        if name != BASE and name not in self.c.specs:
            what = f"no experiment '{name}' in this workspace"
            yield Problem(what, where, self.c.meant(name, {*self.c.specs, BASE} - {self.subject.name}))
        elif name == BASE and BASE in self.c.specs and started != BASE and self.subject.name != BASE:
            what = f"'{BASE}' is ambiguous: it is an experiment, and it denotes the model that '{self.subject.name}' starts from"
            yield Problem(what, where, f"rename the experiment '{BASE}'")
        elif name == BASE and self.subject.trained is None and self.subject.base.adapter is None:
            what = f"'{self.subject.name}' trains nothing and has no adapter, so '{BASE}' is the model itself"
            yield Problem(what, where, f"remove '{BASE}', or name another experiment")

    def _base(self) -> dict[str, Answers]:
        """The predictions of the model that the experiment starts from: from its own experiment, else from one step per task.

        Without a training, they are those of the model without its adapter.
        """
        model, base = self.subject.spec.experiment.model, self.subject.base
        existing: dict[str, Answers] = {}
        name = base.name
        if self.subject.trained is None:
            base = replace(base, adapter=None, adapter_name=None, vocabulary=None)
        elif isinstance(model, TrainedModel):
            name = model.experiment
            # With another configuration, or merged weights, it is not the model that the other experiment evaluates.
            existing = self._existing(self.subject_of(name)) if model.rope_scaling is None and not model.merged else {}
        name = base.named(name)
        return {task: existing[task] if task in existing else self._answers_of_base(base, name, task) for task in self._all_tasks()}

    def _answers_of_base(self, base: Base, name: str, task: str) -> Answers:
        return Answers(task, f"{name}-{BASE}", self.subject.spec, _predictions(self._predict_base(base, name, task), task))

    def _predict_base(self, base: Base, name: str, task: str) -> Step:
        parameters = self._only([task])
        spec = self.subject.spec
        role = _role(spec, task)
        reads = base.reads() | {role: self.own.inputs[role]} | chat_template(spec)
        split = spec.experiment.evaluation.split
        description = f"Predictions of {name} on the {split} rows of {task}."
        # A sweep compares its points with the base on validation rows, and the final evaluation on test rows.
        own = f"predict-{name}-{task}" if split == "test" else f"predict-{name}-{task}-{split}"
        return self.c.add(_step(spec, own, parameters, reads, description), spec)

    def _existing(self, other: Subject) -> dict[str, Answers]:
        """The predictions of OTHER's own evaluation for the same rows with the same settings."""
        step = add_predictions(self.c, other, self.task_of)
        return {task: _answers(other, step, task) for task in self._all_tasks() if self._same_settings(step, task)}

    def _same_settings(self, step: Step, task: str) -> bool:
        """Whether STEP predicts the same rows of TASK with the same settings as this experiment."""
        mine, theirs = self._parameters, step.parameters
        assert isinstance(theirs, predict.Parameters)
        role = _role(self.subject.spec, task)
        if not self.c.same(step.inputs.get(role), self.own.inputs[role]) or (task in mine.held_out) != (task in theirs.held_out):
            return False
        # Additional likelihoods are harmless.
        likelihood = mine.likelihood or task in mine.held_out
        alike = replace_fields(theirs, tasks={task: theirs.tasks[task]} if task in theirs.tasks else {}, held_out=())
        wanted = replace_fields(mine, tasks={task: mine.tasks[task]} if task in mine.tasks else {}, held_out=())
        if likelihood and task in mine.tasks and not theirs.likelihood:
            return False
        return canonical(recipe_of(replace_fields(alike, likelihood=False))) == canonical(
            recipe_of(replace_fields(wanted, likelihood=False))
        )

    def _only(self, tasks: list[str]) -> predict.Parameters:
        """The parameters of this experiment's predictions, restricted to TASKS."""
        mine = self._parameters
        held_out = tuple(task for task in mine.held_out if task in tasks)
        return replace_fields(mine, tasks={task: one for task, one in mine.tasks.items() if task in tasks}, held_out=held_out)

    def _predict_missing(self, missing: Mapping[str, list[str]]) -> dict[str, dict[str, Answers]]:
        """The predictions of adapters for their MISSING tasks, by model: one step loads the base once for all of them.

        An adapter that replaces weights of the base, instead of adding to them, has a step of its own: until the base was put back as it
        was, the adapters after it in a step answered with its weights, and what was answered so must not be found again.
        """
        subjects = {name: self.subject_of(name) for name in missing}
        self.c.problems += [problem for name, tasks in missing.items() for problem in self._incomparable(subjects[name], tasks[0])]
        if not subjects or any(not self._shares_base(other) for other in subjects.values()):
            return {}
        replacing = [name for name, other in subjects.items() if _replaces_weights(other)] if len(subjects) > 1 else []
        together = {name: other for name, other in subjects.items() if name not in replacing}
        found = self._predict_others(together, missing, f"{self.subject.stem}-others") if together else {}
        for name in replacing:
            found |= self._predict_others({name: subjects[name]}, missing, f"{self.subject.stem}-other-{name}")
        return found

    def _predict_others(
        self, subjects: Mapping[str, Subject], missing: Mapping[str, list[str]], whose: str
    ) -> dict[str, dict[str, Answers]]:
        """The step `predict-WHOSE`, in which SUBJECTS answer what they have MISSING."""
        tasks = [task for task in self._all_tasks() if any(task in missing[name] for name in subjects)]
        base = replace(self.subject.base, adapter=None)
        reads = {**base.reads(), **{f"adapter/{name}": adapter for name, other in subjects.items() if (adapter := other.adapter)}}
        spec = self.subject.spec
        reads |= {_role(spec, task): self.own.inputs[_role(spec, task)] for task in tasks}
        split = spec.experiment.evaluation.split
        whom = ", ".join(subjects)
        step = self.c.add(
            _step(
                self.subject.spec,
                f"predict-{whose}",
                self._only(tasks),
                reads,
                f"Predictions of {whom} on the {split} rows of {self.subject.stem}.",
            ),
            self.subject.spec,
        )
        return {
            name: {task: Answers(task, f"{whose}-{name}", spec, _predictions(step, task, name)) for task in missing[name]}
            for name in subjects
        }

    def _shares_base(self, other: Subject) -> bool:
        return other.adapter is not None and self.c.same(other.base.weights, self.subject.base.weights)

    def _incomparable(self, other: Subject, task: str) -> Iterator[Problem]:
        """A problem if OTHER is not an adapter on the same base, so that its missing predictions cannot be added."""
        if not self._shares_base(other):
            spec = self.subject.spec
            where = spec.where("evaluation", "compare", spec.experiment.evaluation.compare.index(other.name))
            what = f"cannot compare with '{other.name}': it is not an adapter on the same model, and it evaluates task '{task}' differently"
            yield Problem(
                what, where, f"set evaluation.tasks, metrics and max_new_tokens in a part that both extend, or remove '{other.name}'"
            )


def _replaces_weights(subject: Subject) -> bool:
    """Whether the adapter of SUBJECT has weights that take the place of the base's; taken to be so if its method is not known."""
    method = subject.method
    return method is None or bool(getattr(method, "modules_to_save", ())) or getattr(method, "bias", "none") != "none"


def replace_fields(parameters: predict.Parameters, **values: object) -> predict.Parameters:
    """PARAMETERS with new values for some fields."""
    return parameters.model_copy(update=values)


def _unpredictable(subject: Subject, name: str) -> list[Problem]:
    """Why task NAME cannot be evaluated; empty if it can."""
    spec = subject.spec
    task, section = spec.experiment.tasks[name], spec.experiment.evaluation
    found = []
    if "" in task.prompts and (task.layout is None or task.layout.kind == "text") and name not in section.held_out:
        what = f"task '{name}' has an empty prompt, so no predictions can be generated"
        hint = "set its prompts, remove it from evaluation.tasks, or move it to evaluation.held_out, to score its likelihood only"
        found.append(Problem(what, spec.where("tasks", name), hint))
    split = task.division
    share, given = (split.shares[1], split.fixed) if section.split == "test" else (split.shares[0], split.column is not None)
    if task.source.split_column and section.split == "test":
        what = f"task '{name}' has no test rows: it is made of answers to train and validation rows"
        way_out = f'evaluate the task that was answered: evaluation.tasks = ["{spec.experiment.asked_task(name)}"]'
        found.append(Problem(what, spec.where("tasks", name), way_out))
    elif share == 0 and not given:
        what = f"task '{name}' is evaluated, but its split has no {section.split} rows"
        hint = f"raise split.{section.split}, or remove the task from evaluation.tasks"
        found.append(Problem(what, spec.where("tasks", name, "split", section.split), hint))
    # In an encoder-decoder model, prompt and prediction do not share positions.
    if name not in section.held_out and not subject.base.encoder_decoder:
        found += long_answer(spec, name, subject.base.context)
    return found


def _add_judgements(c: Compilation, spec: "Spec", answers: Mapping[str, Answers], rows: Mapping[str, Input]) -> dict[str, Input]:
    """Add a judge step, a generate step with a chat teacher, for each of ANSWERS (by role), with the ROWS by task.

    Returns the inputs of `evaluate`, by role.
    """
    judge = spec.experiment.evaluation.judge
    if judge is None:
        return {}
    c.problems += _unknown_in_judge(spec, "judge", judge, PREDICTION_COLUMNS, {one.task for one in answers.values()})
    found = {}
    for role, one in answers.items():
        step = _judge_step(c, spec, judge, one, [rows[one.task]])
        found[f"judge/{role}"] = c.add(step, one.spec).output("rows.jsonl")
    return found


def add_judgement(c: Compilation, spec: "Spec", task: str, whose: str, answers: Input, rows: Sequence[Input]) -> Step:
    """Add the step in which the judge of SPEC, which has one, scores the ANSWERS to ROWS of TASK; WHOSE stands in its name."""
    judge = spec.experiment.evaluation.judge
    assert judge
    c.problems += _unknown_in_judge(spec, "judge", judge, PREDICTION_COLUMNS, {task})
    return c.add(_judge_step(c, spec, judge, Answers(task, whose, spec, answers), rows), spec)


def _judge_step(c: Compilation, spec: "Spec", judge: Judge, answers: Answers, rows: Sequence[Input]) -> Step:
    parameters = generate.Parameters(
        source=Predictions(task=answers.task),
        prompts=(judge.prompt,),
        system=judge.instruction(),
        # An empty prediction is scored, too.
        empty_fields="allow",
        teacher=judge.requested(),
        carry=(_ID,),
    )
    name = "-".join(part for part in ("judge", answers.whose, answers.task, judge.name) if part)
    description = f"Judge scores of the predictions of {answers.whose} on {answers.task}."
    return _asked(c, spec, "judge", name, parameters, (answers.file, *rows), description)


def _asked(
    c: Compilation, spec: "Spec", chat: str, name: str, parameters: generate.Parameters, files: Sequence[Input], description: str
) -> Step:
    """A step that asks the chat model of `[evaluation.CHAT]` about the rows of FILES."""
    section = ("evaluation", chat)
    inside = locate_below(spec, section)

    def locate(path: tuple[str | int, ...]) -> Location | None:
        return inside(("prompt", *path[2:]) if path[:1] == ("prompts",) else path)

    reads, wrong = needed_by(spec, parameters, locate, (), _NO_MAKERS)
    c.problems += wrong
    reads |= {f"source/{number}": file for number, file in enumerate(files)}
    return Step(name, generate.KIND, parameters, reads, description, spec.where(*section), locate)


def _add_verdicts(c: Compilation, spec: "Spec", answers: Mapping[str, Answers], rows: Mapping[str, Input]) -> dict[str, Input]:
    """Add a step for each of ANSWERS (by role) of another model, in which `[evaluation.versus]` compares it with ours.

    Returns the inputs of `evaluate`, by role.
    """
    versus = spec.experiment.evaluation.versus
    if versus is None:
        return {}
    c.problems += _unknown_in_judge(spec, "versus", versus, DUEL_COLUMNS, set(rows))
    found = {}
    for role, other in answers.items():
        if not role.startswith("compare/") or other.task not in rows:
            continue
        parameters = generate.Parameters(
            source=Duels(task=other.task),
            prompts=(versus.prompt,),
            system=versus.system,
            empty_fields="allow",
            teacher=versus.requested(),
            carry=(_ID, "ours"),
        )
        ours = answers[f"predictions/{other.task}"]
        name = "-".join(part for part in ("versus", ours.whose, other.whose, other.task, versus.name) if part)
        description = f"Verdicts on the answers of {ours.whose} and {other.whose} to {other.task}."
        step = _asked(c, spec, "versus", name, parameters, (ours.file, other.file, rows[other.task]), description)
        found[role.replace("compare/", "versus/", 1)] = c.add(step, spec).output("rows.jsonl")
    return found


def _never(*asked: object) -> Step:
    raise AssertionError(f"a judge needs no steps other than predictions: {asked}")


_NO_MAKERS = Makers(_never, _never, _never)


def _unknown_in_judge(
    spec: "Spec", name_of_judge: str, judge: "Judge | Versus", columns: Sequence[str], tasks: set[str]
) -> Iterator[Problem]:
    """A problem for each variable in the templates of JUDGE that is not in COLUMNS, and for each column that a task does not carry."""
    from stages.rows.templates import Template

    for key, template in (("prompt", judge.prompt), ("system", judge.system)):
        if not isinstance(template, str) or template == type(judge).model_fields[key].default:
            continue
        where = spec.where("evaluation", name_of_judge, key)
        for name in sorted(Template(template, key).fields - set(columns)):
            hint = f"{did_you_mean(name, columns)} (for a column of the task, write fields.{name})"
            yield Problem(f"unknown variable '{name}' in the judge's {key}", where, hint)
        for task in sorted(tasks):
            carried = spec.experiment.tasks[task].carry
            for name in dict.fromkeys(_CARRIED_FIELD.findall(template)):
                if name not in carried:
                    what = f"the judge's {key} uses the column '{name}', which is not in the carry of task '{task}'"
                    yield Problem(what, where, f'add it: tasks.{task}.carry = ["{name}"]')
