"""The plan's memory estimate compared with measured peaks of real trainings, on the CPU.

    python benchmarks/memory.py [--quick] [--json]

Each configuration trains a few steps in a process of its own. Its peak is measured twice: of all tensors, by the byte, as a GPU counts;
and of the process beyond what it held before, as this project records it for every training.
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
import subprocess
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.common import ROOT, machine, table
from benchmarks.training import make_job

LENGTH = 256
"""Tokens of the longest row; the shortest has three quarters of them."""
ROWS = 4
"""Rows of a global batch, which is computed at once."""
STEPS = 3
MAPPED = 2**18
"""From so many bytes on glibc gives freed memory back to the system. By itself it raises that bound up to 32 MB and keeps much of what was
freed, a third of all and more, which says nothing of what a training needs: mallopt(3), M_MMAP_THRESHOLD."""


@dataclass(frozen=True)
class Size:
    """A model to be made from scratch."""

    architecture: str
    hidden_size: int
    layers: int
    vocabulary: int


@dataclass(frozen=True)
class Case:
    """One training: its model, and what differs from an ordinary one."""

    name: str
    size: Size
    values: dict[str, Any]
    bins: bool = False
    """Whether rows of half the length lie in bins of two."""


LLAMA = Size("llama", 640, 12, 16_000)
FALCON = Size("falcon", 768, 10, 32_000)
QUICK = Size("llama", 256, 4, 2_000)
LORA = {"kind": "lora", "r": 16}
CASES = (
    Case("full, padded", LLAMA, {"method": {"kind": "full"}}),
    Case("full, 8-bit AdamW, padded", LLAMA, {"method": {"kind": "full"}, "optimizer": {"kind": "adamw_8bit"}}),
    Case("full, checkpointed layers", LLAMA, {"method": {"kind": "full"}, "gradient_checkpointing": True}),
    Case("LoRA, padded", LLAMA, {"method": LORA}),
    Case("LoRA, packed", LLAMA, {"method": LORA, "batching": {"kind": "packed"}}, bins=True),
    Case("LoRA, checkpointed layers", LLAMA, {"method": LORA, "gradient_checkpointing": True}),
    Case("LoRA, padded, large vocabulary", FALCON, {"method": LORA}),
    Case("QLoRA (NF4), padded", FALCON, {"method": {"kind": "qlora", "r": 16}}),
)


def make_model(size: Size, folder: Path) -> Path:
    """A model with random weights."""
    import torch
    from transformers import AutoModelForCausalLM

    from stages.initialize.architectures import Falcon, Llama
    from stages.models.folders import save_model

    family: Any = {"llama": Llama, "falcon": Falcon}[size.architecture]
    made = family(hidden_size=size.hidden_size, layers=size.layers, heads=size.hidden_size // 64, max_length=LENGTH * 2)
    torch.manual_seed(0)
    save_model(AutoModelForCausalLM.from_config(made.config(size.vocabulary, 0, 1), dtype=torch.float32), folder)
    return folder


def measured(case: Case, folder: Path) -> dict[str, Any]:
    """What one training records; in a process that has done nothing else."""
    from benchmarks.tensors import Peak
    from engine.core.part import with_tuples
    from engine.estimate.training import estimated
    from stages.train import Parameters
    from stages.train.body import run

    given = {"threads": 1, "seed": 0, "global_batch": {"rows": ROWS}, "learning_rate": 1e-4} | case.values
    parameters = Parameters.model_validate(with_tuples(given))
    longest = LENGTH // 2 if case.bins else LENGTH
    rows = ROWS * STEPS * (2 if case.bins else 1)
    job = make_job(folder / "job", folder / "model", rows, longest, longest if case.bins else 3 * longest // 4)
    if case.bins:
        _bin(job.inputs["order"], rows)
    with contextlib.redirect_stderr(io.StringIO()), Peak() as tensors:
        metrics = run(parameters, job)
    found: dict[str, Any] = metrics["_measured"]
    return found | estimated(parameters, job.inputs, found) | {"parameters": metrics["parameters"], "tensor_bytes": tensors.peak}


def _bin(order: Path, rows: int) -> None:
    """Let two rows that follow each other share a bin."""
    import numpy as np
    from safetensors.numpy import load_file, save_file

    path = order / "order.safetensors"
    save_file(load_file(path) | {"bins": np.arange(0, rows + 1, 2, dtype=np.int64)}, path)


def compare(case: Case, folder: Path) -> dict[str, Any]:
    """A configuration's estimate, its measured peak beyond the process's own memory, and by which share they differ."""
    from engine.estimate.training import error, needed

    found = in_child("train", case, folder)
    wrong = error(found)
    assert wrong is not None, "both numbers are there"
    peak = needed(found)
    parts = {name: found["estimated"][name] for name in ("weights", "gradients", "optimizer", "activations")}
    return {
        "name": case.name,
        "parameters": found["parameters"],
        "estimated_bytes": found["estimated"]["total"],
        "measured_bytes": peak,
        "error": wrong,
        "tensor_bytes": found["tensor_bytes"],
        "tensor_error": found["estimated"]["total"] / found["tensor_bytes"] - 1,
        "parts": parts,
    }


def in_child(verb: str, case: Case, folder: Path) -> dict[str, Any]:
    """Make the model of CASE, or train it, in a process of its own, whose peak is nobody else's."""
    command = [sys.executable, __file__, f"--{verb}", json.dumps(asdict(case)), str(folder)]
    environment = dict(os.environ) | {"PYTHONPATH": str(ROOT), "MALLOC_MMAP_THRESHOLD_": str(MAPPED)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{case.name}: {done.stderr}")
    values: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return values


def measure(quick: bool) -> dict[str, Any]:
    """Every configuration, one after the other."""
    cases = [Case(case.name, QUICK if quick else case.size, case.values, case.bins) for case in (CASES[::3] if quick else CASES)]
    rows = []
    with tempfile.TemporaryDirectory(prefix="memory-") as name:
        for size in dict.fromkeys(case.size for case in cases):
            folder = Path(name) / f"{size.architecture}-{size.hidden_size}"
            in_child("make", next(case for case in cases if case.size == size), folder)
            for number, case in enumerate(case for case in cases if case.size == size):
                own = folder / str(number)
                own.mkdir()
                (own / "model").symlink_to(folder / "model")
                rows.append(compare(case, own))
    largest = {name: max(abs(row[name]) for row in rows) for name in ("error", "tensor_error")}
    return {"rows": rows, "largest_error": largest["error"], "largest_tensor_error": largest["tensor_error"], "machine": machine()}


def report(found: dict[str, Any]) -> str:
    """What was measured as a table for people."""
    rows = [
        [
            row["name"],
            f"{row['parameters'] / 1e6:.0f} M",
            *(megabytes(row[f"{what}_bytes"]) for what in ("estimated", "tensor", "measured")),
            *(f"{row[error]:+.0%}" for error in ("tensor_error", "error")),
        ]
        for row in found["rows"]
    ]
    columns = ["training", "parameters", "estimated", "tensors", "process", "error to tensors", "error to process"]
    return f"{found['machine']}\n\n{table(columns, rows)}"


def megabytes(size: int) -> str:
    """SIZE bytes in MB of 10^6 bytes."""
    return f"{size / 1e6:,.0f} MB"


def child(verb: str, values: dict[str, Any], folder: Path) -> None:
    """The work of a process of its own."""
    from stages.models.folders import prepare_process

    case = Case(values["name"], Size(**values["size"]), values["values"], values["bins"])
    prepare_process(1)
    if verb == "make":
        make_model(case.size, folder / "model")
        print("{}")
    else:
        print(json.dumps(measured(case, folder)))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one JSON value as the last line of stdout")
    parser.add_argument("--quick", action="store_true", help="tiny models")
    parser.add_argument("--make", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--train", nargs=2, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    for verb in ("make", "train"):
        if given := getattr(chosen, verb):
            child(verb, json.loads(given[0]), Path(given[1]))
            return
    found = measure(chosen.quick)
    print(json.dumps(found) if chosen.json else report(found))


if __name__ == "__main__":
    main()
