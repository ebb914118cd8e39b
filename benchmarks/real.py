"""A real model: trainings compared with TRL's SFTTrainer and a loop of a few lines, and answers compared with transformers' generate.

    python -m benchmarks.real [--quick] [--json]

SmolLM2-135M-Instruct (`make real-model`) and the rows of specs/examples/smollm2, made into tokens by that example's own steps. Every loop
takes the same rows in the same order from the same weights, one after the other in one process, on all cores; TRL and the loop pad, as
here, and the last row of each precision is this project's training in packed batches. Numerics are native, answers greedy.
"""

import sys

if __name__ == "__main__":
    # Run as a script: this folder itself must not be searched, where a benchmark of tokenize would stand before Python's own module.
    sys.path[0] = __file__.rpartition("/benchmarks/")[0] or "."

import argparse
import contextlib
import io
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from benchmarks import gpu_train
from benchmarks.common import machine, table
from benchmarks.experiments import EXPERIMENTS, run
from benchmarks.gpu_train import Case, Watch, estimated, reset_peak
from engine.core.workspace import Workspace
from engine.plan.project import Project
from stages.models.folders import prepare_process
from stages.predict import Parameters as Prediction
from stages.process.job import Job
from stages.train import GlobalBatch, Parameters, Schedule
from stages.train.batching import Packed, Padded
from stages.train.methods import Lora

EXPERIMENT = "multitask"
WARM = 1
"""Steps before the clock starts."""
BATCH = 16
"""Rows that transformers' generate answers at once."""


@dataclass(frozen=True)
class Real(Case):
    """A training of the real model."""

    def prepared(self) -> Any:
        import torch

        from stages.models.folders import load_model
        from stages.train.loop.precision import prepare_precision, weights_dtype

        prepare_precision(self.parameters)
        model = load_model(self.job.inputs["model"], dtype=weights_dtype(self.parameters))
        torch.manual_seed(1)
        return self.parameters.method.prepare(model)


def prepared(folder: Path) -> Project:
    """The example's workspace in FOLDER, built as far as rows, tokens, order and the model's weights."""
    EXPERIMENTS["smollm2"].prepare(folder)
    kinds = {"dequantise", "generate", "split", "tokenize"}
    graph = Project(Workspace.at(folder)).graph
    names = [step.name for step in graph if step.kind_name in kinds] + [f"mix-{EXPERIMENT}"]
    if run(folder, "build", *names):
        raise RuntimeError("the steps of specs/examples/smollm2 were not built")
    return Project(Workspace.at(folder))


def job_of(project: Project, step: str, folder: Path) -> Job:
    """What a step of the example reads, with FOLDER for what it writes."""
    inputs = {role: project.root / item.path for role, item in project.graph[step].inputs.items()}
    for name in ("output", "scratch"):
        (folder / name).mkdir(parents=True)
    return Job(step, inputs, folder / "output", folder / "plot.csv", folder / "scratch")


def first_rows(job: Job, count: int, folder: Path) -> Job:
    """JOB with the first COUNT rows of its order."""
    from safetensors.numpy import load_file, save_file

    order = load_file(job.inputs["order"] / "order.safetensors")
    folder.mkdir()
    save_file({name: np.ascontiguousarray(values[:count]) for name, values in order.items()}, folder / "order.safetensors")
    (folder / "tasks.json").write_text((job.inputs["order"] / "tasks.json").read_text("utf-8"), "utf-8")
    return replace(job, inputs={**job.inputs, "order": folder})


def bare(case: Case, folder: Path) -> list[float]:
    """The losses of a loop of a few lines, which pads batches as this project does and computes the loss as transformers does."""
    import torch

    from stages.train.loop.batches import below
    from stages.train.loop.data import Rows

    rows = Rows.open(case.job.inputs["order"], case.job.group("tokens"))
    model = case.prepared().train()
    optimizer = torch.optim.AdamW([weight for weight in model.parameters() if weight.requires_grad], lr=case.parameters.learning_rate)
    size, losses = case.parameters.global_batch.rows, []
    for start in range(0, len(rows), size):
        positions = range(start, min(start + size, len(rows)))
        batch = below(positions, [rows[position] for position in positions])
        loss = model(**batch.inputs, labels=batch.labels, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    return losses


LOOPS: dict[str, Callable[[Case, Path], list[float]]] = {"bare": bare, "trl": gpu_train.trl, "ours": gpu_train.ours}


def train(case: Case, loop: str, folder: Path) -> dict[str, Any]:
    """Speed in real tokens (padding does not count), memory and losses of one loop."""
    import torch

    from stages.train.loop.data import Rows
    from stages.train.memory.peak import peak_memory, release

    rows = Rows.open(case.job.inputs["order"], case.job.group("tokens"))
    tokens = int(rows.lengths()[WARM * case.parameters.global_batch.rows :].sum())
    release()
    before, watch = reset_peak(), Watch()
    with watch.watching(), contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        losses = LOOPS[loop](case, folder)
    peak = max(0, peak_memory(torch.device("cpu")) - before)
    speed = tokens / (watch.moments[-1] - watch.moments[WARM - 1])
    return {**case.names, "loop": loop, "tokens_per_second": speed, "peak_memory_bytes": peak, "losses": losses}


def trainings(
    project: Project, folder: Path, precisions: tuple[Literal["float32", "bfloat16"], ...], rows: int, batch: int, repeats: int
) -> list[dict[str, Any]]:
    """Every loop in every precision and layout, in turn: the fastest of REPEATS, so that other work counts for little.

    ROWS rows in steps of BATCH.
    """
    from transformers import AutoConfig

    from stages.train.loop.data import Rows

    best: dict[tuple[str, str, str], dict[str, Any]] = {}
    for number in range(repeats):
        for precision in precisions:
            for batching, loops in ((Padded(), tuple(LOOPS)), (Packed(length=1024), ("ours",))):
                for loop in loops:
                    here = folder / f"{number}-{precision}-{batching.kind}-{loop}"
                    job = first_rows(job_of(project, f"train-{EXPERIMENT}", here), rows, here / "order")
                    parameters = Parameters(
                        method=Lora(r=16, lora_alpha=32, lora_dropout=0.0),
                        global_batch=GlobalBatch(rows=batch),
                        batching=batching,
                        micro_batch=batch,
                        learning_rate=5e-4,
                        schedule=Schedule(kind="constant", warmup_ratio=0.0),
                        precision=precision,
                        weight_decay=0.01,
                    )
                    config = AutoConfig.from_pretrained(job.inputs["model"])
                    longest = int(Rows.open(job.inputs["order"], job.group("tokens")).lengths().max())
                    case = Real("SmolLM2-135M-Instruct", batching.kind, longest, config, parameters, job)
                    found = train(case, loop, here / "trl") | {"precision": precision, "estimated_bytes": estimated(case)}
                    key = (precision, batching.kind, loop)
                    if key not in best or found["tokens_per_second"] > best[key]["tokens_per_second"]:
                        best[key] = found
    return list(best.values())


def answers(project: Project, folder: Path, rows: int | None) -> dict[str, Any]:
    """Seconds of this project's predict step and of transformers' generate for all test rows, and the number of equal answers."""
    from stages.predict.body import run as predict

    step = project.graph[f"predict-{EXPERIMENT}"]
    job = job_of(project, step.name, folder)
    inputs = {role: path for role, path in job.inputs.items() if role != "adapter"}
    assert isinstance(step.parameters, Prediction)
    parameters = step.parameters.model_copy(update={"rows": rows})
    started = time.perf_counter()
    with contextlib.redirect_stderr(io.StringIO()):
        predict(parameters, replace(job, inputs=inputs))
    ours = time.perf_counter() - started
    said = [json.loads(line) for path in sorted(job.output.glob("*.jsonl")) for line in path.read_text("utf-8").splitlines()]
    started = time.perf_counter()
    theirs = _generated(
        job.inputs["model"], [row["prompt"] for row in said], max(task.max_new_tokens for task in parameters.tasks.values())
    )
    taken = time.perf_counter() - started
    equal = sum(row["answer"] == text for row, text in zip(said, theirs, strict=True))
    return {"rows": len(said), "ours_s": ours, "transformers_s": taken, "equal_answers": equal, "ratio": taken / ours}


def _generated(folder: Path, prompts: list[str], longest: int) -> list[str]:
    """What transformers answers, greedily, in batches of rows of like length."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    asked = [
        tokenizer.apply_chat_template([{"role": "user", "content": text}], add_generation_prompt=True, tokenize=False) for text in prompts
    ]
    order = sorted(range(len(asked)), key=lambda number: len(asked[number]))
    found = [""] * len(asked)
    for start in range(0, len(order), BATCH):
        chosen = order[start : start + BATCH]
        given = tokenizer([asked[number] for number in chosen], return_tensors="pt", padding=True, add_special_tokens=False)
        with torch.inference_mode():
            made = model.generate(**given, max_new_tokens=longest, do_sample=False)[:, given["input_ids"].shape[1] :]
        for number, text in zip(chosen, tokenizer.batch_decode(made, skip_special_tokens=True), strict=True):
            found[number] = text
    return found


def ratios(rows: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """This project's padded training compared with the others, in each precision."""
    for precision in dict.fromkeys(row["precision"] for row in rows):
        by = {(row["method"], row["loop"]): row for row in rows if row["precision"] == precision}
        ours = by["padded", "ours"]
        for name, other in (("trl", by["padded", "trl"]), ("bare", by["padded", "bare"]), ("ours packed", by["packed", "ours"])):
            apart = max(abs(a / b - 1) for a, b in zip(ours["losses"], other["losses"], strict=True))
            speed, memory = (ours[value] / other[value] for value in ("tokens_per_second", "peak_memory_bytes"))
            yield {"precision": precision, "compared_with": name, "speed": speed, "memory": memory, "losses_apart": apart}


def measure(quick: bool) -> dict[str, Any]:
    """Everything, in one run."""
    with tempfile.TemporaryDirectory(prefix="real-") as name:
        project = prepared(Path(name) / "workspace")
        prepare_process()
        answered = answers(project, Path(name) / "answers", 1 if quick else None)
        sizes = (("float32",), 8, 4, 1) if quick else (("float32", "bfloat16"), 80, 8, 2)
        trained = trainings(project, Path(name), *sizes)
    return {"trainings": trained, "ratios": list(ratios(trained)), "answers": answered, "machine": machine()}


def report(found: dict[str, Any]) -> str:
    """What was measured as tables for people."""
    columns = ["precision", "batches", "loop", "tokens/s", "peak GB", "estimated GB", "last loss"]
    rows = [
        [
            *(str(row[name]) for name in ("precision", "method", "loop")),
            f"{row['tokens_per_second']:,.0f}",
            f"{row['peak_memory_bytes'] / 1e9:.2f}",
            f"{(row['estimated_bytes'] or 0) / 1e9:.2f}" if row["loop"] == "ours" else "",
            f"{row['losses'][-1]:.4f}",
        ]
        for row in found["trainings"]
    ]
    compared = [
        [row["precision"], row["compared_with"], f"{row['speed']:.2f}", f"{row['memory']:.2f}", f"{row['losses_apart']:.1e}"]
        for row in found["ratios"]
    ]
    asked = found["answers"]
    sentence = (
        f"{asked['rows']} rows answered in {asked['ours_s']:.1f} s, by transformers in {asked['transformers_s']:.1f} s "
        f"({asked['ratio']:.2f} times as long); {asked['equal_answers']} answers are equal."
    )
    ratios_table = table(["precision", "ours compared with", "speed", "memory", "losses apart"], compared)
    return "\n\n".join([found["machine"], table(columns, rows), ratios_table, sentence])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one JSON value as the last line of stdout")
    parser.add_argument("--quick", action="store_true", help="float32 only, few rows, no repeats")
    chosen = parser.parse_args()
    found = measure(chosen.quick)
    print(json.dumps(found) if chosen.json else report(found))


if __name__ == "__main__":
    main()
