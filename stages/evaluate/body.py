"""The work of evaluate: a model answers test rows, and metrics are computed on the answers."""

import hashlib
from collections import Counter
from dataclasses import asdict, dataclass
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


def run(parameters: Parameters, job: Job) -> Metrics:
    """Write `predictions-TASK.jsonl` for each task; raises UserError for test rows that cannot be asked."""
    prepare_process(parameters.threads)
    model, tokenizer = _load(job)
    paths = job.group("test")
    # All tasks are read before the first one is asked: a mistake should show up early.
    left_out: Counter[str] = Counter()
    questions = {task: _read(task, paths[task], tokenizer, parameters.rows, left_out) for task in sorted(parameters.tasks)}
    for task, asked in questions.items():
        _refuse_overflow(task, asked, parameters.tasks[task].max_new_tokens, longest_sequence(model.config))
    metrics: dict[str, Any] = {}
    for task, asked in questions.items():
        predictions = _answer(model, tokenizer, asked, parameters, task)
        write_rows(job.output / f"predictions-{task}.jsonl", (asdict(prediction) for prediction in predictions))
        metrics[task] = {"rows": len(predictions), "left_out": left_out[task], **_scores(parameters, predictions)}
    return metrics


def _load(job: Job) -> tuple[Any, TextTokenizer]:
    """The model, with the adapter on it where one is given, and the model's tokenizer."""
    tokenizer = load_tokenizer(job.inputs["model"])
    model = load_model(job.inputs["model"])
    return (load_adapter(model, job.inputs["adapter"]) if "adapter" in job.inputs else model), tokenizer


def _read(task: str, path: Path, tokenizer: TextTokenizer, limit: int | None, left_out: Counter[str]) -> list[Question]:
    """The rows of a test split, at most LIMIT of them: those whose ids have the smallest hashes, so that added rows replace few.

    Rows with lone surrogates, which have no tokens, are counted in LEFT_OUT.
    """
    found = [_question(task, where, row, tokenizer) for where, row in read_objects(path)]
    questions = [question for question in found if question is not None]
    left_out[task] += len(found) - len(questions)
    if not questions:
        hint = f"set tasks.{task}.split.test higher, give the task more rows, or leave it out of evaluation.tasks"
        raise UserError(f"task '{task}' has no test rows to evaluate on", hint=hint)
    chosen = set(sorted(range(len(questions)), key=lambda number: _hash(questions[number].id))[:limit])
    return [question for number, question in enumerate(questions) if number in chosen]


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


def _refuse_overflow(task: str, questions: list[Question], max_new_tokens: int, longest: int | None) -> None:
    question = max(questions, key=lambda question: len(question.input_ids))
    needed = len(question.input_ids) + max_new_tokens
    if longest is not None and needed > longest:
        hint = f"lower tasks.{task}.max_new_tokens, shorten the prompts, or take a model with more positions"
        parts = f"{len(question.input_ids)} of prompt {question.id} + {max_new_tokens} new"
        raise UserError(f"task '{task}' needs {needed} positions ({parts}), but the model has {longest}", hint=hint)


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
