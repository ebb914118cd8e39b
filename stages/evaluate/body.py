"""The work of evaluate: a model answers test rows, and metrics are computed on the answers."""

import hashlib
from collections import Counter
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from engine.errors import Location, UserError
from stages.common.job import Job, Metrics
from stages.common.jsonl import read_objects, write_rows
from stages.common.models import TextTokenizer, load_adapter, load_model, load_tokenizer, longest_sequence, prepare_process
from stages.common.progress import Progress, progress
from stages.common.text import is_well_formed
from stages.evaluate import Parameters
from stages.evaluate.metrics.prediction import Prediction

DIGITS = 6
"""Metrics are rounded to so many digits, so that their diffs are about something."""


@dataclass(frozen=True)
class Question:
    """A test row, with its prompt as tokens."""

    id: str
    prompt: str
    reference: str
    input_ids: list[int]


@dataclass
class Exam:
    """The questions of one task, and what became of the other test rows."""

    questions: list[Question] = field(default_factory=list)
    rows_in: int = 0
    truncated: int = 0
    left_out: Counter[str] = field(default_factory=Counter)

    def limit(self, rows: int | None) -> None:
        """Keep at most ROWS questions: those whose ids have the smallest hashes, so that added rows replace few."""
        if rows is None or len(self.questions) <= rows:
            return
        order = sorted(range(len(self.questions)), key=lambda number: _hash(self.questions[number].id))
        chosen = set(order[:rows])
        self.left_out["not asked"] += len(self.questions) - len(chosen)
        self.questions = [question for number, question in enumerate(self.questions) if number in chosen]

    def counts(self) -> Metrics:
        """Every test row is either asked or left out for a reason."""
        rows_out = len(self.questions)
        assert self.rows_in == rows_out + sum(self.left_out.values())
        return {"rows_in": self.rows_in, "rows_out": rows_out, "left_out": dict(sorted(self.left_out.items())), "truncated": self.truncated}


def run(parameters: Parameters, job: Job) -> Metrics:
    """Write `predictions-TASK.jsonl` for each task; raises UserError for test rows that cannot be asked."""
    prepare_process(parameters.threads)
    model, tokenizer = _load(job)
    longest = longest_sequence(model.config)
    # All tasks are read before the first one is asked: a mistake should show up early.
    exams = {task: _read(task, path, tokenizer, parameters, longest) for task, path in sorted(job.group("test").items())}
    metrics: dict[str, Any] = {}
    for task, exam in exams.items():
        predictions = _answer(model, tokenizer, exam.questions, parameters, task)
        write_rows(job.output / f"predictions-{task}.jsonl", (asdict(prediction) for prediction in predictions))
        metrics[task] = {**exam.counts(), **_scores(parameters, predictions)}
    return metrics


def _load(job: Job) -> tuple[Any, TextTokenizer]:
    """The model, with the adapter on it where one is given, and the model's tokenizer."""
    tokenizer = load_tokenizer(job.inputs["model"])
    model = load_model(job.inputs["model"])
    return (load_adapter(model, job.inputs["adapter"]) if "adapter" in job.inputs else model), tokenizer


def _read(task: str, path: Path, tokenizer: TextTokenizer, parameters: Parameters, longest: int | None) -> Exam:
    """The rows of a test split that will be asked; raises UserError where none is left."""
    exam = Exam()
    for where, row in read_objects(path):
        exam.rows_in += 1
        question = _question(task, where, row, tokenizer)
        room = None if longest is None else longest - parameters.tasks[task].max_new_tokens
        if question is None:
            exam.left_out["lone surrogate"] += 1
        elif fitting := _fit(task, question, room, parameters.over_length):
            exam.truncated += fitting is not question
            exam.questions.append(fitting)
        else:
            exam.left_out["over length"] += 1
    if not exam.questions:
        hint = f"set tasks.{task}.split.test higher, give the task more rows, or leave it out of evaluation.tasks"
        raise UserError(f"task '{task}' has no test rows to evaluate on", hint=hint)
    exam.limit(parameters.rows)
    return exam


def _hash(identifier: str) -> bytes:
    return hashlib.sha256(identifier.encode("utf-8", "surrogatepass")).digest()


def _question(task: str, where: Location, row: dict[str, object], tokenizer: TextTokenizer) -> Question | None:
    prompt, reference = row.get("prompt"), row.get("completion")
    if not isinstance(prompt, str) or not isinstance(reference, str):
        raise UserError(f"this test row of task '{task}' has no text under prompt and completion", where, "both are needed, as strings")
    if not is_well_formed(prompt + reference):
        return None
    input_ids = tokenizer.encode(prompt)
    if not input_ids:
        raise UserError(f"this test row of task '{task}' has an empty prompt", where, "a model needs at least one token to go on from")
    return Question(str(row.get("id", "")), prompt, reference, input_ids)


def _fit(task: str, question: Question, room: int | None, over_length: str) -> Question | None:
    """QUESTION where its prompt fits into ROOM tokens, shortened or None where the policy says so; raises UserError otherwise."""
    length = len(question.input_ids)
    if room is None or length <= room:
        return question
    if over_length == "drop":
        return None
    if over_length == "truncate_prompt_left" and room > 0:
        return replace(question, input_ids=question.input_ids[-room:])
    hint = f"lower tasks.{task}.max_new_tokens, set tokenization.over_length, shorten the prompts, or take a model with more positions"
    raise UserError(
        f"prompt {question.id} of task '{task}' has {length} tokens, and the model has room for {room} before the answer", hint=hint
    )


def _answer(model: Any, tokenizer: TextTokenizer, questions: list[Question], parameters: Parameters, task: str) -> list[Prediction]:
    """The model's answers, in the order of QUESTIONS."""
    from stages.evaluate.generation import generate

    bar: Progress[None] = progress(len(questions), f"evaluate {task}")
    with bar:
        prompts = [question.input_ids for question in questions]
        answers = generate(model, prompts, tokenizer.eos, parameters.tasks[task].max_new_tokens, parameters.batch_rows, bar.update)
    return [_prediction(question, ids, tokenizer) for question, ids in zip(questions, answers, strict=True)]


def _prediction(question: Question, ids: list[int], tokenizer: TextTokenizer) -> Prediction:
    ended = bool(ids) and ids[-1] == tokenizer.eos
    return Prediction(question.id, question.prompt, question.reference, tokenizer.decode(ids), ended, len(ids) - ended)


def _scores(parameters: Parameters, predictions: list[Prediction]) -> dict[str, float]:
    scores: dict[str, float] = {}
    for metric in parameters.metrics:
        scores |= {name: round(value, DIGITS) for name, value in metric.score(predictions).items()}
    return scores
