"""The steps that evaluate an experiment: its model answers, others answer the same rows, and metrics compare them.

Nobody is asked twice: where another experiment's own evaluation asks the same rows in the same way, its predictions are read. The model
that an adapter starts from is asked one task a step, which all experiments share. Adapters that lack answers are asked together, on one
loaded base.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from engine.checks.context_length import long_answer
from engine.compile.compilation import Base, Compilation, chat_template, encoder_decoder, locate_below, narrow
from engine.compile.judge import Answers, add_judgements, judge_metric
from engine.core.errors import Problem
from engine.core.graph import Input, Step
from engine.core.part import Part
from engine.identity.text import canonical, recipe_of
from engine.spec.load import Spec
from engine.spec.sections import TrainedModel
from stages import evaluate, predict
from stages.chat.markers import Markers
from stages.tokenize.masks import Delimited

_PROMPT_POLICIES: dict[str, Literal["drop", "truncate_prompt_left"]] = {"drop": "drop", "truncate_prompt_left": "truncate_prompt_left"}
"""Policies that are about prompts too; a test row has no completion to cut, and with any other a prompt that is too long is an error."""

BASE = "base"
"""Stands in `compare` for the model that the experiment starts from."""


@dataclass(frozen=True)
class Subject:
    """A model that is asked: the experiment that trains it, what it starts from, and the training."""

    spec: Spec
    base: Base
    trained: Step

    @property
    def name(self) -> str:
        """The experiment's name."""
        return self.spec.name

    @property
    def stem(self) -> str:
        """The name that its steps have: that of all points of a sweep, so that equal steps of theirs are one."""
        return self.spec.stem

    @property
    def makes_adapter(self) -> bool:
        """Whether the model is the base with an adapter on it."""
        return self.spec.experiment.training.method.makes_adapter

    def reads(self) -> dict[str, Input]:
        """What a step reads that asks the model: its weights, and the adapter where there is one."""
        if self.makes_adapter:
            return {**self.base.reads(), "adapter": self.trained.output()}
        return {"model": self.trained.output()}

    def answers(self, step: Step, task: str) -> Answers:
        """This model's answers to TASK, which STEP makes for its own evaluation."""
        return Answers(task, self.stem, self.spec, _predictions(step, task))


def _others(subject: Subject) -> tuple[str, ...]:
    """Whom a model is compared with; a list that several experiments share names each of them, itself too."""
    return tuple(name for name in subject.spec.experiment.evaluation.compare if name != subject.name)


TaskOf = Callable[[Spec, str], Step]
"""The split step of a spec's task."""


def add_evaluation(c: Compilation, subject: Subject, task_of: TaskOf, subject_of: Callable[[str], Subject]) -> Step:
    """Add the steps that ask and measure the model of SUBJECT, and those that it is compared with."""
    own = add_predictions(c, subject, task_of)
    section = subject.spec.experiment.evaluation
    tasks = _tasks(subject.spec)
    answers = {f"predictions/{task}": subject.answers(own, task) for task in (*tasks, *section.held_out)}
    for name, found in _Comparison(c, subject, own, task_of, subject_of).answers().items():
        answers |= {f"compare/{name}/{task}": one for task, one in found.items()}
    reads = {role: one.file for role, one in answers.items()}
    rows = {task: own.inputs[_role(subject.spec, task)] for task in tasks}
    reads |= add_judgements(c, subject.spec, {role: one for role, one in answers.items() if one.task in rows}, rows)
    parameters = evaluate.Parameters(
        model=subject.stem,
        tasks=tasks,
        held_out=section.held_out,
        trained_on=subject.spec.experiment.mixture.tasks,
        metrics=(*section.metrics, *([judge_metric(section.judge)] if section.judge else [])),
        compare=_others(subject),
        statistics=section.statistics,
    )
    locate = locate_below(subject.spec, ("evaluation",), trained_on=("mixture", "tasks"), model=("experiment", "name"))
    where = subject.spec.where("evaluation")
    name, description = f"evaluate-{subject.stem}", f"Metrics of {subject.stem}."
    return c.add(Step(name, evaluate.KIND, parameters, reads, description, where, locate), subject.spec)


def add_predictions(c: Compilation, subject: Subject, task_of: TaskOf) -> Step:
    """Add the step in which the model of SUBJECT answers its own tasks."""
    spec = subject.spec
    asked = (*_tasks(spec), *spec.experiment.evaluation.held_out)
    c.problems += [problem for task in asked for problem in _unanswerable(subject, task)]
    reads = subject.reads()
    split = spec.experiment.evaluation.split
    reads |= {_role(spec, task): task_of(spec, task).output(f"{split}.jsonl") for task in asked}
    return c.add(
        _step(spec, f"predict-{subject.stem}", _parameters(subject), reads, f"Answers of {subject.stem} to the {split} rows."), spec
    )


def _role(spec: Spec, task: str) -> str:
    """What a step calls the rows of a task that it asks."""
    return f"{spec.experiment.evaluation.split}/{task}"


def _step(spec: Spec, name: str, parameters: predict.Parameters, reads: Mapping[str, Input], description: str) -> Step:
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


def _tasks(spec: Spec) -> tuple[str, ...]:
    return spec.experiment.evaluation.tasks or spec.experiment.mixture.tasks


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
    """The markers by which rows were learned, which their questions need too."""
    return Markers(instruction=mask.instruction, response=mask.response) if isinstance(mask, Delimited) else None


def _predictions(step: Step, task: str, folder: str = "") -> Input:
    return step.output(f"{folder}/predictions-{task}.jsonl" if folder else f"predictions-{task}.jsonl")


@dataclass(frozen=True)
class _Comparison:
    """Finds, or adds, the predictions of the models that an experiment is compared with."""

    c: Compilation
    subject: Subject
    own: Step
    task_of: TaskOf
    subject_of: Callable[[str], Subject]

    def answers(self) -> dict[str, dict[str, Answers]]:
        """Each model's predictions, by its name and by task."""
        known = {name for name in _others(self.subject) if self._is_known(name)}
        found = {name: self._base() if name == BASE else self._recorded(self.subject_of(name)) for name in sorted(known)}
        lacking = {name: [task for task in self._all_tasks() if task not in has] for name, has in found.items()}
        for name, more in self._asked_together({name: tasks for name, tasks in lacking.items() if tasks}).items():
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
        for problem in self._naming_problems(name):
            self.c.problems.append(problem)
            return False
        return True

    def _naming_problems(self, name: str) -> Iterator[Problem]:
        spec = self.subject.spec
        where = spec.where("evaluation", "compare", spec.experiment.evaluation.compare.index(name))
        model = spec.experiment.model
        started = model.experiment if isinstance(model, TrainedModel) else None
        if name != BASE and name not in self.c.specs:
            what = f"no spec of this workspace is experiment '{name}'"
            yield Problem(what, where, self.c.meant(name, {*self.c.specs, BASE} - {self.subject.name}))
        elif name == BASE and BASE in self.c.specs and started != BASE and self.subject.name != BASE:
            what = f"'{BASE}' is both an experiment and the model that '{self.subject.name}' starts from, and these are two"
            yield Problem(what, where, "give the experiment another name")

    def _base(self) -> dict[str, Answers]:
        """The predictions of the model that the experiment starts from: those of its own experiment, else of a step a task."""
        model = self.subject.spec.experiment.model
        has = self._recorded(self.subject_of(model.experiment)) if isinstance(model, TrainedModel) else {}
        name = model.experiment if isinstance(model, TrainedModel) else self.subject.base.name
        return {task: has[task] if task in has else self._asked_of_base(name, task) for task in self._all_tasks()}

    def _asked_of_base(self, name: str, task: str) -> Answers:
        return Answers(task, f"{name}-{BASE}", self.subject.spec, _predictions(self._ask_base(name, task), task))

    def _ask_base(self, name: str, task: str) -> Step:
        parameters = self._only([task])
        spec = self.subject.spec
        role = _role(spec, task)
        reads = self.subject.base.reads() | {role: self.own.inputs[role]} | chat_template(spec)
        description = f"Answers of {name} to the {spec.experiment.evaluation.split} rows of {task}."
        return self.c.add(_step(self.subject.spec, f"predict-{name}-{task}", parameters, reads, description), self.subject.spec)

    def _recorded(self, other: Subject) -> dict[str, Answers]:
        """The predictions that OTHER's own evaluation makes of the same rows in the same way."""
        step = add_predictions(self.c, other, self.task_of)
        return {task: other.answers(step, task) for task in self._all_tasks() if self._asks_as_we_do(step, task)}

    def _asks_as_we_do(self, step: Step, task: str) -> bool:
        mine, theirs = self._parameters, step.parameters
        assert isinstance(theirs, predict.Parameters)
        role = _role(self.subject.spec, task)
        if not self.c.same(step.inputs.get(role), self.own.inputs[role]) or (task in mine.held_out) != (task in theirs.held_out):
            return False
        # Likelihoods that nobody asks for do no harm.
        likelihood = mine.likelihood or task in mine.held_out
        alike = replace_fields(theirs, tasks={task: theirs.tasks[task]} if task in theirs.tasks else {}, held_out=())
        wanted = replace_fields(mine, tasks={task: mine.tasks[task]} if task in mine.tasks else {}, held_out=())
        if likelihood and task in mine.tasks and not theirs.likelihood:
            return False
        return canonical(recipe_of(replace_fields(alike, likelihood=False))) == canonical(
            recipe_of(replace_fields(wanted, likelihood=False))
        )

    def _only(self, tasks: list[str]) -> predict.Parameters:
        """What we ask, for these tasks alone."""
        mine = self._parameters
        held_out = tuple(task for task in mine.held_out if task in tasks)
        return replace_fields(mine, tasks={task: one for task, one in mine.tasks.items() if task in tasks}, held_out=held_out)

    def _asked_together(self, lacking: Mapping[str, list[str]]) -> dict[str, dict[str, Answers]]:
        """The predictions of adapters whose own evaluations lack some tasks: one step asks them all on one loaded base."""
        subjects = {name: self.subject_of(name) for name in lacking}
        self.c.problems += [problem for name, tasks in lacking.items() for problem in self._unaskable(subjects[name], tasks[0])]
        if not subjects or any(not self._shares_base(other) for other in subjects.values()):
            return {}
        tasks = [task for task in self._all_tasks() if any(task in missing for missing in lacking.values())]
        base = replace(self.subject.base, adapter=None)
        reads = {**base.reads(), **{f"adapter/{name}": other.trained.output() for name, other in subjects.items()}}
        spec = self.subject.spec
        reads |= {_role(spec, task): self.own.inputs[_role(spec, task)] for task in tasks}
        split = spec.experiment.evaluation.split
        name, whom = f"predict-{self.subject.stem}-others", ", ".join(subjects)
        step = self.c.add(
            _step(self.subject.spec, name, self._only(tasks), reads, f"Answers of {whom} to the {split} rows of {self.subject.stem}."),
            self.subject.spec,
        )
        whose = f"{self.subject.stem}-others"
        return {
            name: {task: Answers(task, f"{whose}-{name}", spec, _predictions(step, task, name)) for task in missing}
            for name, missing in lacking.items()
        }

    def _shares_base(self, other: Subject) -> bool:
        return other.makes_adapter and self.c.same(other.base.weights, self.subject.base.weights)

    def _unaskable(self, other: Subject, task: str) -> Iterator[Problem]:
        if not self._shares_base(other):
            spec = self.subject.spec
            where = spec.where("evaluation", "compare", spec.experiment.evaluation.compare.index(other.name))
            what = f"'{other.name}' is no adapter on the same model, and its own evaluation does not ask task '{task}' as this one does"
            yield Problem(
                what, where, f"set evaluation.tasks, metrics and max_new_tokens in a part that both extend, or leave out '{other.name}'"
            )


def replace_fields(parameters: predict.Parameters, **values: object) -> predict.Parameters:
    """PARAMETERS with other values for some fields."""
    return parameters.model_copy(update=values)


def _unanswerable(subject: Subject, name: str) -> list[Problem]:
    """Why a task cannot be evaluated, found before anything is trained."""
    spec = subject.spec
    task, section = spec.experiment.tasks[name], spec.experiment.evaluation
    found = []
    if "" in task.prompts and (task.layout is None or task.layout.kind == "text") and name not in section.held_out:
        what = f"task '{name}' has an empty prompt, so there is nothing to ask"
        hint = "give it prompts, leave it out of evaluation.tasks, or name it in evaluation.held_out, to be read alone"
        found.append(Problem(what, spec.where("tasks", name), hint))
    split = task.split
    share, given = (split.shares[1], split.fixed) if section.split == "test" else (split.shares[0], split.column is not None)
    if share == 0 and not given:
        what = f"task '{name}' is evaluated, but its split holds out no {section.split} rows"
        hint = f"raise split.{section.split}, or leave it out of evaluation.tasks"
        found.append(Problem(what, spec.where("tasks", name, "split", section.split), hint))
    # An encoder and a decoder have positions of their own.
    if name not in section.held_out and not subject.base.encoder_decoder:
        found += long_answer(spec, name, subject.base.context)
    return found
