"""The steps behind `[pairs.<name>]`: models answer the train and validation rows of a task, and a step scores and pairs the answers.

A sample is a step of its own, named by what it depends on, so that all pairs of the same answers share it, and more samples leave those
that exist as they are.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from engine.compile.compilation import Compilation, Subject, chat_template, locate_below, narrow
from engine.core.errors import Location, UserError, did_you_mean
from engine.core.graph import Step
from engine.core.part import Need
from engine.spec.headline import headline
from engine.spec.pairs import ByJudge, Criterion, Pairs
from stages import pair, predict
from stages.evaluate.metrics.classification import Classification
from stages.evaluate.metrics.judge_scores import JudgeScores
from stages.generate.sources.pairs import PAIRS_FILE
from stages.predict.decoding.sample import Sample

if TYPE_CHECKING:
    from engine.spec.sections import Spec
    from stages.predict.decoding import Decoding

SPLITS = ("train", "validation")
"""The splits whose prompts are answered: test rows are left for evaluations."""


@dataclass(frozen=True)
class PairMakers:
    """Functions that add the steps that pairs are made of."""

    task_of: Callable[[str], Step]
    """The split step of a task of the spec."""
    subject_of: Callable[[str], Subject]
    """The model of an experiment."""
    answered: Callable[..., Step]
    """The step in which a model answers rows: `add_answers` of the evaluation."""
    judged: Callable[..., Step]
    """The step in which the judge scores answers: `add_judgement` of the evaluation."""


def add_pairs(c: Compilation, spec: "Spec", need: Need, where: Location | None, makers: PairMakers) -> Step:
    """Add the steps that answer, judge and pair, of which a task at WHERE has NEED; returns the step that writes pairs and answers."""
    name = need.pairs
    assert name is not None
    if (section := spec.experiment.pairs.get(name)) is None:
        raise UserError(f"this spec has no [pairs.{name}]", where, did_you_mean(name, spec.experiment.pairs))
    at, task = ("pairs", name), section.task
    if task not in spec.experiment.tasks:
        raise UserError(f"this spec has no task '{task}'", spec.where(*at, "task"), did_you_mean(task, spec.experiment.tasks))
    if need.file == PAIRS_FILE and len(section.experiments) * section.samples < 2:
        hint = "raise samples, or name another experiment; to learn from good answers alone, use source best_of"
        raise UserError("a pair needs two answers to a prompt, and these are of one sample of one model", spec.where(*at, "samples"), hint)
    scores = tuple(_criterion(spec, name, number) for number in range(len(section.scores)))
    rows = {split: makers.task_of(task).output(f"{split}.jsonl") for split in SPLITS}
    reads = {f"rows/{split}": file for split, file in rows.items()}
    for number, subject in enumerate(_subjects(c, spec, name, makers.subject_of)):
        asked = {"tasks": {task: predict.TaskPrediction(max_new_tokens=spec.experiment.tasks[task].max_new_tokens)}, "rows": section.rows}
        files = {**chat_template(subject.spec), **{f"{split}/{task}": file for split, file in rows.items()}}
        description = f"Answers of {subject.name} to the train and validation rows of {task}."
        for sample, decoding in enumerate(_decodings(section)):
            labels = _labels(section, decoding)
            name_of_answers = "-".join(("predict", subject.name, task, *labels))
            answers = makers.answered(subject, name_of_answers, files, description, **asked, decoding=decoding)
            file, role = answers.output(f"predictions-{task}.jsonl"), f"answers/{number}/{subject.name}/{sample}"
            reads[role] = file
            if any(isinstance(one.metric, JudgeScores) for one in scores):
                judgements = makers.judged(task, "-".join((subject.name, *labels)), file, list(rows.values()))
                reads[f"judge/{role}"] = judgements.output("rows.jsonl")
    parameters = narrow(pair.Parameters, section, scores=scores)
    description = f"Pairs of answers to {task} by {', '.join(section.experiments)}."
    return c.add(Step(f"pair-{name}", pair.KIND, parameters, reads, description, spec.where(*at), locate_below(spec, at)), spec)


def _subjects(c: Compilation, spec: "Spec", name: str, subject_of: Callable[[str], Subject]) -> list[Subject]:
    """The models that answer; raises UserError if one is unknown, or is itself trained on these pairs."""
    where = ("pairs", name, "experiments")
    if spec.name in c.pairing:
        chain = " -> ".join((*c.pairing[c.pairing.index(spec.name) :], spec.name))
        what = f"pairs are made of answers of a model that learns from them: {chain}"
        raise UserError(what, spec.where(*where), "name the experiment that this one starts from")
    found = []
    c.pairing.append(spec.name)
    try:
        for number, experiment in enumerate(spec.experiment.pairs[name].experiments):
            if experiment not in c.specs:
                what, hint = f"no experiment '{experiment}' in this workspace", c.meant(experiment, c.specs)
                raise UserError(what, spec.where(*where, number), hint)
            found.append(subject_of(experiment))
    finally:
        c.pairing.pop()
    return found


def _decodings(section: Pairs) -> "Iterator[Decoding]":
    """How each sample is decoded: they differ in their seeds."""
    decoding = section.decoding
    for sample in range(section.samples):
        yield decoding.model_copy(update={"seed": decoding.seed + sample}) if isinstance(decoding, Sample) else decoding


def _labels(section: Pairs, decoding: "Decoding") -> list[str]:
    """What distinguishes the answers of a model to a task, as parts of a step's name."""
    rows = [f"rows{section.rows}"] if section.rows else []
    if not isinstance(decoding, Sample):
        return [*rows, decoding.kind]
    values = {"t": decoding.temperature, "k": decoding.top_k, "p": decoding.top_p, "seed": decoding.seed}
    return [*rows, *(f"{key}{value}".replace(".", "_") for key, value in values.items() if value is not None)]


def _criterion(spec: "Spec", name: str, number: int) -> pair.Criterion:
    """A term of the score with the value that it counts; raises UserError for scores of a judge that there is not."""
    given: Criterion = spec.experiment.pairs[name].scores[number]
    metric, value = given.metric, given.value
    if not isinstance(metric, ByJudge):
        standing = "accuracy" if isinstance(metric, Classification) else headline(metric)
        return pair.Criterion(metric=metric, value=value or standing, weight=given.weight)
    judge, at = spec.experiment.evaluation.judge, ("pairs", name, "scores", number)
    if judge is None:
        raise UserError("the answers are scored by a judge, and this spec has none", spec.where(*at, "metric"), "add [evaluation.judge]")
    if value is not None and value not in judge.scores:
        raise UserError(f"the judge has no score '{value}'", spec.where(*at, "value"), did_you_mean(value, judge.scores))
    scored = JudgeScores(scores=judge.scores, lowest=judge.lowest, highest=judge.highest)
    return pair.Criterion(metric=scored, value=f"judge_{value or judge.scores[0]}", weight=given.weight)
