"""Body of predict: models answer rows of a split, mostly test rows, and optionally the likelihood of the references is measured."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from stages.chat.questions import Policies, Questions
from stages.models.added_tokens import extend
from stages.models.folders import TextTokenizer, load_tokenizer, longest_sequence, prepare_process
from stages.predict import Parameters
from stages.predict.exam import Exam, Question, Reader
from stages.process.job import Job, Metrics
from stages.process.progress import Progress, progress
from stages.rows.prediction import FinishReason, Prediction
from stages.rows.predictions import write_predictions
from stages.rows.splits import SPLITS

LOSS_DIGITS = 4
"""Decimal digits of losses; further digits depend on the rows that share a batch."""


def run(parameters: Parameters, job: Job) -> Metrics:
    """Write `predictions-TASK.jsonl` for each task (in `NAME/` for each of several adapters); raises UserError for unusable rows."""
    prepare_process(parameters.threads)
    from stages.predict.entrants import adapter_folders, entrants, folder_of, load, virtual_tokens

    tokenizer = load_tokenizer(job.inputs.get("vocabulary", job.inputs["model"]))
    model = load(job.inputs["model"])
    if "vocabulary" in job.inputs:
        extend(model, job.inputs["vocabulary"])
    asking = questions(parameters, tokenizer, job.inputs.get("chat_template"))
    reader = Reader(parameters, asking, longest_sequence(model.config, virtual_tokens(job)))
    # All tasks are read before generation starts, so that errors show up early.
    asked = {split: job.group(split) for split in SPLITS}
    exams = {
        task: reader.read(task, {split: paths[task] for split, paths in asked.items() if task in paths})
        for task in sorted({task for paths in asked.values() for task in paths})
    }
    metrics: dict[str, Any] = {}
    for name, entrant in entrants(model, job):
        ends = asking.ends(job.inputs["model"], *adapter_folders(job, name))
        found = {task: _answer_all(entrant, tokenizer, asking, ends, exam, parameters, task) for task, exam in exams.items()}
        for task, predictions in found.items():
            write_predictions(folder_of(job, name) / f"predictions-{task}.jsonl", predictions)
        numbers = {task: _metrics(exams[task], predictions) for task, predictions in found.items()}
        metrics |= {name: numbers} if name else numbers
    return metrics


def questions(parameters: Parameters, tokenizer: TextTokenizer, template: Path | None) -> Questions:
    """Turns rows into prompts as PARAMETERS say; TEMPLATE is the file with the chat template, if the format names one."""
    return Questions(
        parameters.format,
        tokenizer.encoder,
        template,
        parameters.boundary,
        parameters.encoder_decoder,
        parameters.markers,
        Policies(parameters.unrendered, parameters.control_tokens_in_text, parameters.strip_reasoning),
    )


def _metrics(exam: Exam, predictions: Sequence[Prediction]) -> Metrics:
    return {**exam.counts(), "tokens": sum(prediction.tokens for prediction in predictions)}


def _answer_all(
    model: Any, tokenizer: TextTokenizer, asking: Questions, ends: Sequence[int], exam: Exam, parameters: Parameters, task: str
) -> list[Prediction]:
    """The predictions of one task, in the order of its questions; ENDS are the ids of the end tokens."""
    questions = exam.questions
    answers = _answers(model, ends, questions, parameters, task) if task in parameters.tasks else [None] * len(questions)
    measured = _losses(model, questions, task) if parameters.likelihood or task in parameters.held_out else {}
    return [
        prediction(task, question, ids, tokenizer, asking, ends, measured.get(number))
        for number, (question, ids) in enumerate(zip(questions, answers, strict=True))
    ]


def _answers(
    model: Any, stops: Sequence[int], questions: Sequence[Question], parameters: Parameters, task: str
) -> Sequence[list[int] | None]:
    from stages.models.generation import generate

    bar: Progress[None] = progress(len(questions), f"predict {task}")
    with bar:
        return generate(
            model,
            [question.input_ids for question in questions],
            stops,
            parameters.tasks[task].max_new_tokens,
            parameters.batch_rows,
            bar.update,
            lambda numbers: parameters.decoding.processors([questions[number].id for number in numbers]),
        )


def _losses(model: Any, questions: Sequence[Question], task: str) -> Mapping[int, tuple[float, int]]:
    """Summed loss (nats) and number of tokens, by index of each question that has a reference."""
    from stages.predict.likelihood import losses

    numbers = [number for number, question in enumerate(questions) if question.reference_ids]
    bar: Progress[None] = progress(len(numbers), f"read {task}")
    with bar:
        sources, targets = [questions[n].input_ids for n in numbers], [questions[n].reference_ids for n in numbers]
        return dict(zip(numbers, losses(model, sources, targets, bar.update), strict=True))


def prediction(
    task: str,
    question: Question,
    ids: list[int] | None,
    tokenizer: TextTokenizer,
    asking: Questions,
    ends: Sequence[int],
    measured: tuple[float, int] | None,
) -> Prediction:
    """The prediction for QUESTION from the token ids of its answer, None if none was generated.

    ENDS are the ids of the end tokens, MEASURED is the summed loss of the reference (nats) and its number of tokens, if measured.
    """
    loss, loss_tokens = (round(measured[0], LOSS_DIGITS), measured[1]) if measured else (None, 0)
    if ids is None:
        return Prediction(task, question.id, question.prompt, question.reference, None, None, 0, loss, loss_tokens, question.references)
    ended = bool(ids) and ids[-1] in ends
    reason: FinishReason = "stop" if ended else "length"
    (answer,) = tokenizer.encoder.decode([ids[: len(ids) - ended]])
    reasoning, said = asking.split(answer)
    calls = None if question.reference_calls is None else [call._asdict() for call in asking.calls(said)]
    return Prediction(
        task,
        question.id,
        question.prompt,
        question.reference,
        said,
        reason,
        len(ids) - ended,
        loss,
        loss_tokens,
        question.references,
        reasoning or None,
        calls,
        question.reference_calls,
    )
