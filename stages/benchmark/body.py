"""Body of benchmark: runs lm-evaluation-harness on a model and keeps its metrics and samples."""

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
"""Decimal digits of metrics: rounding keeps noise out of `dvc metrics diff`."""

_RESAMPLES, _CONFIDENCE = 1000, 0.95

_INSTALL = "install it: pip install 'adapterbuild[eval]'"


def run(parameters: Parameters, job: Job) -> Metrics:
    """Write `results.json` and each task's samples; raises UserError for unknown tasks and for data files outside benchmarks.folder."""
    folder = job.inputs.get("tasks")
    if folder:
        # Prepared data is cached by content here: the library's own cache keys files by name and modification time.
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
    """The harness's task index; raises UserError if it does not contain one of TASKS."""
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
    """TASKS with their data; raises UserError if a definition or its data cannot be loaded."""
    try:
        loaded: Mapping[str, Any] = manager.load(list(tasks))["tasks"]
    except Exception as error:  # a definition runs code of the user or of the hub, which can raise anything
        lines = str(error).strip().splitlines() or [type(error).__name__]
        hint = (
            "published tasks load their data from the hub: set HF_HUB_OFFLINE=0 if a network is available, or fill the hub cache beforehand"
        )
        raise UserError(f"cannot load the tasks: {lines[0]}", hint=hint) from error
    return loaded


def _refuse_files_elsewhere(tasks: Mapping[str, Any], folder: Path | None) -> None:
    """Raise UserError for a data file outside FOLDER: it is not an input of this step, so edits would not rerun it."""
    for name, task in tasks.items():
        for file in _files((task.config.dataset_kwargs or {}).get("data_files")):
            local = "://" not in file
            if local and not (folder and Path(file).resolve().is_relative_to(folder.resolve())):
                where = Location(str(folder)) if folder else None
                hint = "move it into the folder of the task definition, and give its path relative to the workspace"
                raise UserError(f"task '{name}' reads {file}, which is outside benchmarks.folder", where, hint)


def _files(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    for item in value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ():
        yield from _files(item)


def _ask(parameters: Parameters, job: Job, manager: Any) -> dict[str, Any]:
    """Results of lm-evaluation-harness for the model, as its `simple_evaluate` returns them."""
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from transformers import PreTrainedTokenizerFast

    folders = [job.inputs[role] for role in ("model", "adapter") if role in job.inputs]
    # An adapter carries the chat template and the end tokens that it was trained with.
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
        # The harness computes standard errors in worker processes; ours come from the samples.
        bootstrap_iters=0,
        log_samples=True,
    )
    return found


def _scores(values: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """Metrics of one task under short names: `acc,none` is `acc`, `exact_match,strict-match` is `exact_match_strict_match`."""
    for key, value in sorted(values.items()):
        metric, comma, chosen = key.partition(",")
        # numpy scalars fail isinstance(float) but convert to float.
        if comma and not metric.endswith("_stderr") and hasattr(value, "__float__"):
            name = metric if chosen == "none" else f"{metric}_{chosen.replace('-', '_')}"
            yield name, round(float(value), DIGITS)


def _count(found: Mapping[str, Any], task: str) -> dict[str, int]:
    counted = found["n-samples"].get(task)
    return {"rows": int(counted["effective"])} if counted else {}


def _details(found: Mapping[str, Any], task: str, scores: Mapping[str, float]) -> dict[str, Any]:
    """Values, with intervals where a value is the mean over samples, and the task's settings."""
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
    """One document with its requests, responses and scores, as JSON values."""
    kept = {key: sample[key] for key in (*_KEPT, *sample["metrics"]) if key in sample}
    plain: dict[str, Any] = json.loads(json.dumps(kept, default=str, sort_keys=True))
    return plain
