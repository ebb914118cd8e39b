"""The steps behind the objective `distill`: what the teacher predicts for the tokens of each task, computed once for all its students."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from engine.compile.compilation import Base, Compilation, Subject, encoder_decoder, locate_below
from engine.core.errors import UserError
from engine.core.graph import Step
from stages import logits
from stages.train.objectives.distill import Distill

if TYPE_CHECKING:
    from engine.spec.sections import Spec

_SPLITS = ("train", "validation")


def add_logits(
    c: Compilation, spec: "Spec", student: Base, objective: Distill, subject_of: Callable[[str], Subject]
) -> Callable[[str, Step], Step]:
    """Add the steps of the teacher that OBJECTIVE names; returns a function that adds what it predicts for a task, given its tokens.

    The STUDENT's weights have no part in it, nor have temperature and alpha, so that all points of a sweep share it. Raises UserError if
    there is no such teacher, or if it learns from its own student.
    """
    teacher, where = _teacher(c, spec, objective, subject_of), spec.where("training", "objective", "teacher")
    if encoder_decoder(spec, student) or teacher.base.encoder_decoder:
        whose = "this experiment" if encoder_decoder(spec, student) else f"'{teacher.name}'"
        raise UserError(f"distillation is supported for causal models only, and {whose} has an encoder-decoder", where)
    training, resources = spec.experiment.training, spec.experiment.resources
    assert training, "an objective belongs to a training"
    parameters = logits.Parameters(
        top_k=objective.top_k, precision=training.precision, attention=resources.attention, threads=resources.threads
    )
    precision = training.precision if training.precision != "float32" else None
    whose_tokens = student.name if student.name != teacher.base.name else None
    locate = locate_below(spec, ("training", "objective"), precision=("training", "precision"))

    def add(task: str, tokens: Step) -> Step:
        reads = {**teacher.reads(), **{split: tokens.output(f"{split}.safetensors") for split in _SPLITS}}
        reads |= {f"student/{name}": file for name, file in student.tokenizer.items()}
        reads |= {f"teacher/{name}": file for name, file in teacher.base.tokenizer.items()}
        suffixes = (task, whose_tokens, spec.experiment.tokenization.name, f"top{objective.top_k}", precision)
        name = "-".join(part for part in ("logits", teacher.name, *suffixes) if part)
        return c.add(Step(name, logits.KIND, parameters, reads, f"What {teacher.name} predicts in {task}.", where, locate), spec)

    return add


def _teacher(c: Compilation, spec: "Spec", objective: Distill, subject_of: Callable[[str], Subject]) -> Subject:
    where = spec.where("training", "objective", "teacher")
    if objective.teacher not in c.specs:
        what = f"no experiment '{objective.teacher}' in this workspace"
        raise UserError(what, where, c.meant(objective.teacher, c.specs))
    if spec.name in c.taught:
        chain = " -> ".join((*c.taught[c.taught.index(spec.name) :], spec.name))
        raise UserError(f"a teacher learns from its own student: {chain}", where, "name a teacher that does not depend on this experiment")
    c.taught.append(spec.name)
    try:
        return subject_of(objective.teacher)
    finally:
        c.taught.pop()
