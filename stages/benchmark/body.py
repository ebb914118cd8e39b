"""The work of benchmark: lm-evaluation-harness asks a model, and its numbers and samples are kept."""

import json
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from engine.core.errors import Location, UserError, did_you_mean
from stages.benchmark import Parameters
from stages.models.folders import load_adapter, load_model, load_tokenizer, longest_sequence, prepare_process
from stages.process.job import Job, Metrics
from stages.rows.jsonl import write_rows
from stages.tokens.encoder import CONFIG
from stages.tokens.ends import answer_ends

DIGITS = 6
"""Metrics are rounded to so many digits, so that their diffs are about something."""

_RESAMPLES, _CONFIDENCE = 1000, 0.95

_INSTALL = "install it: pip install 'adapterbuild[eval]'"


def run(parameters: Parameters, job: Job) -> Metrics:
    """Write `results.json` and the samples of each task; raises UserError for tasks that are unknown or read files from elsewhere."""
    folder = job.inputs.get("tasks")
    if folder:
        # Prepared data is kept by content here: the library's own cache knows files by their names and times.
        os.environ["HF_DATASETS_CACHE"] = str(job.scratch.resolve())
    prepare_process(parameters.threads)
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    manager = _manager(parameters.tasks, folder)
    _refuse_files_elsewhere(_load(manager, parameters.tasks), folder)
    found = _ask(parameters, job, manager)
    for task, samples in found["samples"].items():
        write_rows(job.output / f"samples-{task}.jsonl", map(_sample, samples))
    scores = {task: dict(_scores(values)) for task, values in found["results"].items()}
    details = {task: _details(found, task, values) for task, values in scores.items()}
    text = json.dumps(details, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False)
    (job.output / "results.json").write_text(text + "\n", "utf-8")
    return {task: {**_count(found, task), **values} for task, values in scores.items() if values}


def _manager(tasks: Sequence[str], folder: Path | None) -> Any:
    """The tasks that lm-evaluation-harness knows; raises UserError where one of TASKS is none of them."""
    try:
        from lm_eval.tasks import TaskManager
    except ImportError as error:
        raise UserError(f"lm-evaluation-harness cannot be used: {error}", hint=_INSTALL) from None
    own = str(folder.resolve()) if folder else None
    # Reading the thousands of published definitions takes many seconds.
    manager = TaskManager(include_path=own, include_defaults=False) if own else None
    if manager is None or not set(tasks) <= set(manager.all_tasks):
        manager = TaskManager(include_path=own)
    for name in tasks:
        if name not in manager.all_tasks:
            raise UserError(f"lm-evaluation-harness has no task '{name}'", hint=did_you_mean(name, manager.all_tasks))
    return manager


def _load(manager: Any, tasks: Sequence[str]) -> Mapping[str, Any]:
    """The tasks with their data; raises UserError where a definition or its data cannot be read."""
    try:
        loaded: Mapping[str, Any] = manager.load(list(tasks))["tasks"]
    except Exception as error:  # a definition is code and data of the user's or of the hub: anything can go wrong in it
        lines = str(error).strip().splitlines() or [type(error).__name__]
        hint = "published tasks load their data from the hub: set HF_HUB_OFFLINE=0 where there is a network, or load it into the cache once"
        raise UserError(f"the tasks cannot be loaded: {lines[0]}", hint=hint) from error
    return loaded


def _refuse_files_elsewhere(tasks: Mapping[str, Any], folder: Path | None) -> None:
    """A data file outside of the folder is no input of this step: its edits would go unnoticed."""
    for name, task in tasks.items():
        for file in _files((task.config.dataset_kwargs or {}).get("data_files")):
            local = "://" not in file
            if local and not (folder and Path(file).resolve().is_relative_to(folder.resolve())):
                where = Location(str(folder)) if folder else None
                hint = "put it into the folder of the task's definition, and name it relative to the workspace"
                raise UserError(f"task '{name}' reads {file}, which is not in benchmarks.folder", where, hint)


def _files(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    for item in value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ():
        yield from _files(item)


def _ask(parameters: Parameters, job: Job, manager: Any) -> dict[str, Any]:
    """What lm-evaluation-harness says of the model."""
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from transformers import PreTrainedTokenizerFast

    folders = [job.inputs[role] for role in ("model", "adapter") if role in job.inputs]
    # An adapter brings the chat template and the ends that it has learned.
    served = next(folder for folder in reversed(folders) if (folder / CONFIG).is_file())
    model: Any = load_model(job.inputs["model"])
    longest = longest_sequence(model.config)
    model.generation_config.eos_token_id = list(answer_ends(folders, load_tokenizer(served).encoder, None))
    if "adapter" in job.inputs:
        model = load_adapter(model, job.inputs["adapter"])
    tokenizer = PreTrainedTokenizerFast.from_pretrained(served, local_files_only=True)
    found: dict[str, Any] = simple_evaluate(
        model=HFLM(pretrained=model, tokenizer=tokenizer, batch_size=parameters.batch_rows, max_length=longest),
        tasks=list(parameters.tasks),
        task_manager=manager,
        num_fewshot=parameters.few_shot,
        limit=parameters.limit,
        apply_chat_template=parameters.chat_template,
        random_seed=parameters.seed,
        numpy_random_seed=parameters.seed,
        torch_random_seed=parameters.seed,
        fewshot_random_seed=parameters.seed,
        # Its standard errors come from processes of its own; ours from the samples.
        bootstrap_iters=0,
        log_samples=True,
    )
    return found


def _scores(values: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """The numbers of one task by short names: `acc,none` is `acc`, `exact_match,strict-match` is `exact_match_strict_match`."""
    for key, value in sorted(values.items()):
        metric, comma, chosen = key.partition(",")
        # numpy's numbers are no floats to isinstance, but know how to become one.
        if comma and not metric.endswith("_stderr") and hasattr(value, "__float__"):
            name = metric if chosen == "none" else f"{metric}_{chosen.replace('-', '_')}"
            yield name, round(float(value), DIGITS)


def _count(found: Mapping[str, Any], task: str) -> dict[str, int]:
    counted = found["n-samples"].get(task)
    return {"rows": int(counted["effective"])} if counted else {}


def _details(found: Mapping[str, Any], task: str, scores: Mapping[str, float]) -> dict[str, Any]:
    """Values with intervals, where a value is the mean over samples, and how the task was asked."""
    samples = found["samples"].get(task, [])
    values = {name: {"value": value, **_interval([s[name] for s in samples if name in s], value)} for name, value in scores.items()}
    asked = {key: found[key].get(task) for key in ("versions", "n-shot", "higher_is_better")}
    return {"scores": values, **_count(found, task), **asked}


def _interval(values: Sequence[Any], value: float) -> dict[str, float]:
    import numpy as np

    from stages.statistics.resampling import bootstrap_sums, interval

    if not values or not all(isinstance(one, int | float) for one in values) or abs(float(np.mean(values)) - value) > 10**-DIGITS:
        return {}
    rows = np.asarray(values, np.float64)[:, None]
    low, high = interval(bootstrap_sums(rows, _RESAMPLES, 0)[:, 0] / len(values), _CONFIDENCE)
    return {"low": round(low, DIGITS), "high": round(high, DIGITS)}


_KEPT = ("doc_id", "doc", "target", "arguments", "filtered_resps", "filter", "doc_hash", "prompt_hash")


def _sample(sample: Mapping[str, Any]) -> dict[str, Any]:
    """One document, what was asked, what came back, and its scores, as plain JSON values."""
    kept = {key: sample[key] for key in (*_KEPT, *sample["metrics"]) if key in sample}
    plain: dict[str, Any] = json.loads(json.dumps(kept, default=str, sort_keys=True))
    return plain
