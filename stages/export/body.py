"""Body of export: writes a trained model in another format, asks the trained model and the export the same rows, and compares."""

from pathlib import Path
from typing import Any

from stages.chat.questions import Policies, Questions
from stages.export import Parameters
from stages.export.asked import Asked
from stages.export.asking import Asker, ask
from stages.export.comparing import check
from stages.export.material import Material
from stages.models.folders import count_parameters, load_adapter, load_model, load_tokenizer, longest_sequence, prepare_process
from stages.process.job import Job, Metrics
from stages.process.progress import Progress, progress

_SPARE = 8
"""Tokens that a runtime may need beyond a question and its answer."""


def run(parameters: Parameters, job: Job) -> Metrics:
    """Write the export; raises UserError if it is not the trained model, with the row that shows it."""
    prepare_process(parameters.threads)
    material, asked, size = asked_model(parameters, job)
    with parameters.into.exported(material) as runtime:
        found = check(material, runtime, asked, parameters.into.limits)
    return {"parameters": size, "bytes": _bytes(job.output), "asked_through": runtime.name, **found}


def asked_model(parameters: Parameters, job: Job) -> tuple[Material, list[Asked], int]:
    """What the export is made of, what the trained model says to the held-out rows, and its number of weights.

    Only one model is in memory at a time: the trained one is gone afterwards.
    """
    weights, adapter = job.inputs.get("weights", job.inputs["model"]), job.inputs.get("adapter")
    tokenizer = job.inputs.get("vocabulary", job.inputs["model"])
    encoder = load_tokenizer(tokenizer).encoder
    template = job.inputs.get("chat_template")
    policies = Policies(parameters.unrendered, parameters.control_tokens_in_text, parameters.strip_reasoning)
    asking = Questions(parameters.format, encoder, template, parameters.boundary, False, parameters.markers, policies)
    model = _trained(job, tokenizer)
    asker = Asker(parameters, asking, encoder, template, longest_sequence(model.config))
    questions = asker.questions(job.group("test"))
    ends = asking.ends(job.inputs["model"], *([adapter] if adapter else []))
    material = Material(
        job.output,
        weights,
        adapter if parameters.into.of_adapter else None,
        tokenizer,
        encoder,
        asking.taught,
        parameters.format,
        ends,
        questions,
        max(len(question.prompt) + question.max_new_tokens for question in questions) + _SPARE,
        parameters.threads,
    )
    return material, _ask(model, questions, ends), count_parameters(model)


def _trained(job: Job, vocabulary: Path) -> Any:
    """The trained model as the predict step loads it."""
    model = load_model(job.inputs["model"])
    if "vocabulary" in job.inputs:
        from stages.models.added_tokens import extend

        extend(model, vocabulary)
    return load_adapter(model, job.inputs["adapter"]) if "adapter" in job.inputs else model


def _ask(model: Any, questions: Any, ends: tuple[int, ...]) -> list[Asked]:
    bar: Progress[None] = progress(len(questions), "ask")
    with bar:
        return ask(model, questions, ends, bar.update)


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
