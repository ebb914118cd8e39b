"""Trainings held to what is promised of them: kills, splits, ZeRO stages, and the loop's own time compared with a bare loop's and TRL's.

    python benchmarks/training.py [--quick] [--json]

Everything is measured in one run, on one thread, with models and rows that are made here.
"""

import sys

if __name__ == "__main__":
    # Run as a script: this folder itself must not be searched, where a benchmark of tokenize would stand before Python's own module.
    sys.path[0] = __file__.rpartition("/benchmarks/")[0] or "."

import argparse
import contextlib
import io
import json
import os
import random
import signal
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import machine, table
from benchmarks.token_rows import write_tokenizer
from stages.models.folders import prepare_process
from stages.process.job import Job
from stages.train import Checkpoints, GlobalBatch, Parameters
from stages.train.methods import Full, Lora
from stages.train.zero import Zero

VOCABULARY = 700
ZEROS = {
    "0": Zero(),
    "1": Zero(stage=1),
    "2": Zero(stage=2),
    "3": Zero(stage=3),
    "3, offloaded": Zero(stage=3, offload_optimizer="cpu", offload_parameters="cpu"),
}


def make_model(folder: Path, hidden_size: int, layers: int) -> Path:
    """A Falcon with random weights."""
    import torch
    from transformers import FalconConfig, FalconForCausalLM

    from stages.models.folders import save_model

    torch.manual_seed(0)
    sizes = {"hidden_size": hidden_size, "num_hidden_layers": layers, "num_attention_heads": 4, "vocab_size": VOCABULARY}
    sizes |= {"max_position_embeddings": 256, "num_kv_heads": 2}
    config = FalconConfig(**sizes, bos_token_id=0, eos_token_id=1, new_decoder_architecture=True)
    save_model(FalconForCausalLM(config), folder)
    return folder


def make_job(folder: Path, model: Path, rows: int, longest: int, shortest: int | None = None) -> Job:
    """ROWS rows of SHORTEST (none given: half of LONGEST) to LONGEST random tokens, each one's second half supervised, in random order.

    Where MODEL has no tokenizer yet it gets one, which the training writes next to its weights.
    """
    from safetensors.numpy import save_file

    from stages.tokens.files import TokenWriter

    draw = np.random.default_rng(0)
    for name in ("order", "output", "scratch"):
        (folder / name).mkdir(parents=True)
    with TokenWriter(folder / "tokens.safetensors") as writer:
        for _ in range(rows):
            ids = draw.integers(2, VOCABULARY, draw.integers(shortest or longest // 2, longest + 1)).astype(np.int32)
            writer.write(ids, (np.arange(len(ids)) * 2 >= len(ids)).astype(np.uint8))
    order = {"task": np.zeros(rows, np.int16), "row": draw.permutation(rows).astype(np.int32)}
    save_file(order, folder / "order" / "order.safetensors")
    (folder / "order" / "tasks.json").write_text('["a"]')
    if not (model / "tokenizer.json").exists():
        write_tokenizer(model, [("a", "b")], 300)
    inputs = {"model": model, "order": folder / "order", "tokens/a": folder / "tokens.safetensors"}
    return Job("step", inputs, folder / "output", folder / "plot.csv", folder / "scratch")


def elsewhere(job: Job, folder: Path) -> Job:
    """The same work with fresh folders."""
    for name in ("output", "scratch"):
        (folder / name).mkdir(parents=True)
    return replace(job, output=folder / "output", scratch=folder / "scratch", plot=folder / "plot.csv")


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def in_child(parameters: Parameters, job: Job) -> int:
    """Train in a forked process, which need not import everything again; its process id."""
    from stages.train.body import run

    child = os.fork()
    if not child:
        try:
            with contextlib.redirect_stderr(io.StringIO()):
                run(parameters, job)
            os._exit(0)
        finally:
            os._exit(1)  # never back into what the parent has open
    return child


def finish(child: int) -> None:
    """Wait for CHILD, which must end well."""
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status == 0, f"a training ended with {status}"


def kills(folder: Path, model: Path, count: int) -> dict[str, Any]:
    """Kill a training at COUNT random moments, let it end, and compare with one that nobody disturbed."""
    parameters = Parameters(
        method=Lora(r=4, lora_dropout=0.1), global_batch=GlobalBatch(rows=4), threads=1, checkpoints=Checkpoints(every_steps=1)
    )
    whole = make_job(folder, model, 120, 40)
    started = time.monotonic()
    finish(in_child(parameters, whole))
    seconds = time.monotonic() - started
    job, draw, killed = elsewhere(whole, folder / "killed"), random.Random(1), 0
    for _ in range(count):
        child = in_child(parameters, job)
        time.sleep(draw.uniform(0.1, 0.6) * seconds)
        os.kill(child, signal.SIGKILL)
        killed += os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
        for path in job.output.iterdir():
            path.unlink()
    finish(in_child(parameters, job))
    return {"resume_identical": contents(job.output) == contents(whole.output), "kills": killed}


def distance(one: Path, other: Path) -> float:
    """Norm of the difference of two adapters, relative to the first one's."""
    from safetensors.torch import load_file

    first, second = (load_file(folder / "adapter_model.safetensors") for folder in (one, other))
    squares = [((first[name] - second[name]).norm() ** 2, first[name].norm() ** 2) for name in first]
    return float((sum(part for part, _ in squares) / sum(whole for _, whole in squares)) ** 0.5)


def zero_difference(folder: Path, model: Path, names: list[str]) -> dict[str, float]:
    """The distance of the adapter that two processes train with each stage from the one that a single process trains."""
    from stages.train.body import run

    values: dict[str, Any] = {
        "method": Lora(r=4, lora_dropout=0.1),
        "global_batch": GlobalBatch(rows=6),
        "threads": 1,
        "learning_rate": 3e-3,
    }
    job = make_job(folder, model, 44, 40)
    run(Parameters(**values), job)
    found = {}
    for name in names:
        other = elsewhere(job, folder / f"zero-{name}")
        run(Parameters(**values, devices=2, zero=ZEROS[name]), other)
        found[name] = distance(job.output, other.output)
    return found


def gradient_difference(folder: Path, model: Path) -> float:
    """The largest distance of a split global batch's gradient from the whole one's, dropout included."""
    import torch

    from stages.models.projection import predictions
    from stages.train.batching import Padded
    from stages.train.loop.batches import Batches
    from stages.train.loop.division import Bound, Share
    from stages.train.loop.dropout import install
    from stages.train.loop.loss import token_loss
    from stages.train.loop.training import matter

    found = matter(Parameters(method=Lora(r=4, lora_dropout=0.1)), make_job(folder, model, 22, 40))
    keys, model_, rows = install(found.model, 0), found.model.train(), found.rows
    batch, supervised = range(22), int(rows.supervised().sum())

    def gradient(count: int, micro_rows: int | None) -> Any:
        model_.zero_grad()
        maker = Batches(rows, Padded(), Bound(micro_rows))
        for part in (part for index in range(count) for part in maker.micro_batches(batch, Share(count, index))):
            made = maker.tensors(part)
            keys.of_batch(made.positions, made.offsets, flat=False)
            token_loss(*predictions(model_, made.inputs, made.labels), supervised).backward()
        return torch.cat([weight.grad.flatten() for weight in model_.parameters() if weight.requires_grad and weight.grad is not None])

    whole = gradient(1, None)
    splits = [(1, 1), (1, 5), (2, None), (3, 4), (4, 1)]
    return max(float((gradient(*split) - whole).norm() / whole.norm()) for split in splits)


def ours(job: Job, parameters: Parameters) -> float:
    """Processor seconds of the steps of this project's loop: on one thread, other work on the machine does not count."""
    import torch

    from stages.train.loop.division import Share
    from stages.train.loop.training import matter, work

    found = matter(parameters, job)
    started = time.process_time()
    with contextlib.redirect_stderr(io.StringIO()):
        work(parameters, job, found, Share(), torch.device("cpu"))
    return time.process_time() - started


def bare(job: Job, parameters: Parameters) -> float:
    """Processor seconds of the same steps in a loop of a few lines, with the very same batches."""
    import torch
    from torch.nn.functional import cross_entropy

    from stages.train.loop.batches import below
    from stages.train.loop.training import matter

    found = matter(parameters, job)
    model, rows = found.model.train(), found.rows
    optimizer = torch.optim.AdamW(model.parameters(), lr=parameters.learning_rate, fused=True)
    size, started = parameters.global_batch.rows, time.process_time()
    for start in range(0, len(rows), size):
        positions = range(start, min(start + size, len(rows)))
        batch = below(positions, [rows[position] for position in positions])
        labels = batch.labels[:, 1:]
        logits = model(**batch.inputs, use_cache=False).logits[:, :-1]
        cross_entropy(logits[labels >= 0], labels[labels >= 0]).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    return time.process_time() - started


def trl(job: Job, parameters: Parameters, folder: Path) -> float:
    """Processor seconds of the same steps in TRL's SFTTrainer, on the same rows in the same order."""
    import datasets
    import torch
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast
    from trl import SFTConfig, SFTTrainer

    from stages.train.loop.training import matter

    found = matter(parameters, job)
    rows = [found.rows[position] for position in range(len(found.rows))]
    labels = [
        [number if mask else -100 for number, mask in zip(row.input_ids.tolist(), row.supervised.tolist(), strict=True)] for row in rows
    ]
    data = datasets.Dataset.from_dict({"input_ids": [row.input_ids.tolist() for row in rows], "labels": labels})
    words = {f"w{number}": number for number in range(VOCABULARY)}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel(words, "w2")), pad_token="w0", eos_token="w1")
    config = SFTConfig(
        output_dir=str(folder),
        per_device_train_batch_size=parameters.global_batch.rows,
        num_train_epochs=1,
        learning_rate=parameters.learning_rate,
        max_length=None,
        dataset_kwargs={"skip_prepare_dataset": True},
        shuffle_dataset=False,
        gradient_checkpointing=False,
        bf16=False,
        use_cpu=True,
        report_to="none",
        save_strategy="no",
        logging_strategy="no",
        disable_tqdm=True,
    )
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        trainer = SFTTrainer(found.model, config, train_dataset=data, processing_class=tokenizer)
        torch.set_num_threads(1)
        started = time.process_time()
        trainer.train()
        return time.process_time() - started


def speeds(folder: Path, model: Path, rows: int, repeats: int) -> dict[str, float]:
    """Median seconds of each loop, one after the other in turn, so that other work on the machine meets all of them."""
    parameters = Parameters(method=Full(), global_batch=GlobalBatch(rows=16), threads=1, learning_rate=1e-4)
    job = make_job(folder, model, rows, 96)
    loops: dict[str, Callable[[int], float]] = {
        "ours": lambda number: ours(elsewhere(job, folder / f"ours-{number}"), parameters),
        "bare": lambda number: bare(job, parameters),
        "trl": lambda number: trl(job, parameters, folder / f"trl-{number}"),
    }
    taken: dict[str, list[float]] = {name: [] for name in loops}
    for number in range(repeats + 1):
        for name, loop in loops.items():
            seconds = loop(number)
            if number:  # the first round warms caches
                taken[name].append(seconds)
    return {name: statistics.median(seconds) for name, seconds in taken.items()}


def measure(quick: bool) -> dict[str, Any]:
    """Everything, in one run."""
    prepare_process(1)
    with tempfile.TemporaryDirectory(prefix="training-") as name:
        folder = Path(name)
        small = make_model(folder / "small", 32, 2)
        large = small if quick else make_model(folder / "large", 128, 3)
        # Forks first: a process that has run other threads is not to be forked.
        found = kills(folder / "kills", small, 3 if quick else 10)
        found["gradient_max_relative_difference"] = gradient_difference(folder / "gradient", small)
        taken = speeds(folder / "speeds", large, 64 if quick else 640, 1 if quick else 5)
        stages = zero_difference(folder / "zero", small, ["2"] if quick else list(ZEROS))
    found["zero_max_relative_difference"] = max(stages.values())
    found |= {"overhead": taken["ours"] / taken["bare"] - 1, "trl_ratio": taken["trl"] / taken["ours"]}
    return found | {"details": {"seconds": taken, "zero": stages}, "machine": machine()}


def report(found: dict[str, Any]) -> str:
    """What was measured as a table for people."""
    shown = {name: value for name, value in found.items() if name not in ("details", "machine")}
    rows = [[name, f"{value:.3g}" if isinstance(value, float) else str(value)] for name, value in shown.items()]
    return f"{found['machine']}\n\n{table(['what', 'measured'], rows)}"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one JSON value as the last line of stdout")
    parser.add_argument("--quick", action="store_true", help="tiny sizes and few repeats")
    chosen = parser.parse_args()
    found = measure(chosen.quick)
    print(json.dumps(found) if chosen.json else report(found))


if __name__ == "__main__":
    main()
