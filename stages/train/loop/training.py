"""The work of every process of a training: load rows, prepare the model, resume from the last checkpoint, train, validate."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch

from stages.models.added_tokens import extend
from stages.models.folders import count_parameters, longest_sequence
from stages.process.job import Job
from stages.process.saved import CHECKPOINTS
from stages.train import Parameters
from stages.train.distributed.processes import Processes, Replicated, put, trained
from stages.train.logging.observer import Watcher
from stages.train.loop.acceleration import open_model, speed_up
from stages.train.loop.batches import Batches
from stages.train.loop.checkpoints import Checkpoints, refuse_no_space
from stages.train.loop.data import Rows, global_batches, refuse_misfits, refuse_other_pairs, refuse_single_answers, refuse_unsupervised
from stages.train.loop.distillation import Distillation, teacher_logps
from stages.train.loop.division import Bound, Share
from stages.train.loop.dropout import install
from stages.train.loop.guards import StopRequest
from stages.train.loop.isolation import PADDED, isolate
from stages.train.loop.noise import add_noise
from stages.train.loop.precision import autocast, scales_loss
from stages.train.loop.preference import Preference
from stages.train.loop.record import Point
from stages.train.loop.references import add_mismatched, reference_logps
from stages.train.loop.trainer import Trainer
from stages.train.loop.validation import Validator
from stages.train.memory.peak import Meter, forget_peak, peak_memory
from stages.train.methods.saved import refuse_other
from stages.train.objectives.base import PairObjective
from stages.train.objectives.distill import Distill

STOP = "stop"
"""File in the scratch folder with which the step's process asks the others to stop."""


@dataclass(frozen=True)
class Result:
    """The result of a training."""

    curve: list[Point]
    validation_loss: dict[str, float]
    best_step: int | None
    """The step whose weights are the result, if chosen by validation."""
    peak_memory_bytes: int
    """Peak of the whole process, in bytes."""
    training_memory_bytes: int | None
    """Peak of the training alone, comparable with the estimate, in bytes; None if unknown."""
    micro_rows: int | None
    """Maximum micro-batch in rows; None: the whole share of a global batch."""
    weights: dict[str, torch.Tensor] | None = None
    """The resulting weights by name, if they are not those of the model."""
    validation_measures: dict[str, dict[str, float]] = field(default_factory=dict)
    """What the objective measures of the held-out pairs, by task."""


@dataclass(frozen=True)
class Matter:
    """Model and data of a training."""

    model: Any
    rows: Rows
    validation: dict[str, Rows]
    began: float
    """When it began to be loaded, on the monotonic clock: the time of a training starts there."""


def prepare(parameters: Parameters, inputs: Mapping[str, Path]) -> Any:
    """The model to train; the seed determines its fresh weights."""
    model = open_model(parameters, inputs["model"])
    if "vocabulary" in inputs:
        extend(model, inputs["vocabulary"])
    if "adapter" in inputs:
        refuse_other(parameters.method, inputs["adapter"])
    torch.manual_seed(parameters.seed)
    return speed_up(parameters.method.prepare(model, inputs.get("adapter")), parameters)


def open_rows(parameters: Parameters, job: Job, config: Any) -> tuple[Rows, dict[str, Rows]]:
    """Training rows, and validation rows by task (if any); raises UserError for rows that do not fit the model."""
    from stages.tokens.files import Tokens

    logps = reference_logps(job) if parameters.objective.needs_reference else {}
    teacher = teacher_logps(job, config.vocab_size) if isinstance(parameters.objective, Distill) else {}
    rows = Rows.open(job.inputs["order"], job.group("tokens"), logps.get("train"), teacher.get("train"))
    opened = {
        task: Rows.all_of(Tokens.open(path), logps["validation"][task] if logps else None, teacher["validation"][task] if teacher else None)
        for task, path in sorted(job.group("validation").items())
    }
    refuse_single_answers(rows, parameters.objective.on_pairs, parameters.objective.on_judged)
    validation = {task: held_out for task, held_out in opened.items() if held_out.supervised().sum()}
    if parameters.objective.estimates_kl:
        add_mismatched(job, rows, validation)
    refuse_other_pairs(rows, bool(config.is_encoder_decoder))
    longest = longest_sequence(config, parameters.method.virtual_tokens)
    refuse_misfits(rows, config.vocab_size, longest, "training")
    for task, held_out in validation.items():
        refuse_misfits(held_out, config.vocab_size, longest, f"validation ({task})")
    refuse_unsupervised(rows, global_batches(rows, parameters.global_batch.rows, parameters.global_batch.tokens))
    return rows, validation


def matter(parameters: Parameters, job: Job) -> Matter:
    """Model and rows of a training; raises UserError if they do not fit each other."""
    began = time.monotonic()
    model = prepare(parameters, job.inputs)
    rows, validation = open_rows(parameters, job, model.config)
    return Matter(model, rows, validation, began)


def work(parameters: Parameters, job: Job, matter: Matter, share: Share, device: torch.device, micro_rows: int | None = None) -> Result:
    """Train the model of MATTER, resuming from the last checkpoint, if any; returns the result."""
    model = matter.model.to(device)
    meter = Meter(model, device)
    checkpoints = Checkpoints(job.scratch / CHECKPOINTS, job.scratch.name)
    refuse_no_space(checkpoints.folder, sum(weight.numel() * weight.element_size() for weight in trained(model).values()))
    checkpoint = checkpoints.latest()
    if checkpoint:
        put(checkpoint.weights, model)
    trainer = _trainer(parameters, job, matter, share, device, checkpoints)
    if checkpoint:
        trainer.resume(checkpoint)
    trainer.progress.micro_rows = micro_rows or trainer.progress.micro_rows
    forget_peak(device)
    trainer.run()
    return _result(trainer, share.count == 1 and not parameters.zero.stage, device, meter)


def _trainer(parameters: Parameters, job: Job, matter: Matter, share: Share, device: torch.device, checkpoints: Checkpoints) -> Trainer:
    arrangement = isolate(matter.model) if parameters.batching.flat else PADDED
    decoder_start = getattr(matter.model.config, "decoder_start_token_id", None)
    maker = Batches(matter.rows, parameters.batching, Bound(parameters.micro_batch), arrangement, decoder_start)
    keys = install(matter.model, parameters.seed)
    if parameters.neftune_noise_alpha:
        add_noise(matter.model, parameters.neftune_noise_alpha, keys, torch.from_numpy(matter.rows.lengths()))
    weights = count_parameters(matter.model), count_parameters(matter.model, trainable=True)
    processes = _processes(matter.model, parameters, share)
    section = parameters.validation
    objective = parameters.objective if isinstance(parameters.objective, PairObjective | Distill) else None
    trainer = Trainer(
        processes,
        matter.rows,
        maker,
        parameters,
        keys,
        checkpoints,
        Validator(processes, matter.validation, section, partial(autocast, parameters, device.type), decoder_start, objective),
        Watcher((), (), *weights, share.count, device, job.live, job.name, parameters.report_to, silent=share.index > 0),
        StopRequest(job.scratch / STOP),
        Preference(objective, matter.rows) if isinstance(objective, PairObjective) else None,
        Distillation(objective, matter.rows) if isinstance(objective, Distill) else None,
        matter.began,
    )
    lengths = matter.rows.lengths()
    trainer.watcher.tokens = [int(lengths[batch.start : batch.stop].sum()) for batch in trainer.batches]
    trainer.watcher.supervised = trainer.supervised
    return trainer


def _processes(model: Any, parameters: Parameters, share: Share) -> Processes:
    optimizer = parameters.optimizer.make(model.named_parameters(), parameters.learning_rate, parameters.betas, parameters.weight_decay)
    if not parameters.zero.stage:
        return Replicated(model, optimizer, parameters.max_grad_norm, share, scales_loss(parameters))
    from stages.train.distributed.partitioned import Partitioned

    return Partitioned(model, optimizer, parameters.max_grad_norm, share, parameters.zero)


def _result(trainer: Trainer, model_is_whole: bool, device: torch.device, meter: Meter) -> Result:
    """The result of a finished training."""
    needed = meter.end()
    validations = trainer.progress.validations
    best = None
    weights = None
    if trainer.validator.keeps_best:
        best = min(validations, key=lambda validation: validation.loss)
        # If hosts have separate disks, only the first process's has the best weights.
        weights = trainer.checkpoints.best() if trainer.processes.share.index == 0 else None
    elif not model_is_whole:
        weights = trainer.processes.weights()
    losses = best or (validations[-1] if validations else trainer.validator.ask(len(trainer.curve), trainer.progress.micro_rows))
    step = best.step if best else None
    peak, micro_rows = peak_memory(device), trainer.progress.micro_rows
    return Result(trainer.curve, losses.tasks, step, peak, needed, micro_rows, weights, losses.measures)


def default_device(number: int = 0) -> torch.device:
    """The device of the process with local rank NUMBER."""
    # Other device types are less exact and not deterministic.
    return torch.device("cuda", number) if torch.cuda.is_available() else torch.device("cpu")
