"""A real model: trainings compared with TRL's SFTTrainer and a loop of a few lines, validation and answers with transformers.

    python -m benchmarks.real [--quick] [--json]

SmolLM2-135M-Instruct (`make real-model`) and the rows of specs/examples/smollm2, made into tokens by that example's own steps. Every case
runs in a process of its own, on all cores, with native numerics; its memory is that of this process beyond what it held before. All loops
take the same rows in the same order from the same weights, with the same optimizer: padded to the longest row of a batch, and packed in
the same bins, which TRL takes without padding. Answers are greedy, of the model and with an adapter; transformers takes the rows by
length, in the fastest of several batch sizes, which a part of the rows chooses.
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
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np

from benchmarks import gpu_train
from benchmarks.common import ROOT, machine, table
from benchmarks.experiments import EXPERIMENTS, run
from benchmarks.gpu_train import Case, Watch, estimated, reset_peak
from benchmarks.memory import MAPPED
from engine.core.part import with_tuples
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
BATCHES = (8, 16, 32)
"""Batch sizes among which transformers has its choice."""
SAMPLE = 5
"""Every so manieth row is in the part that chooses."""


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


def inputs_of(project: Project, step: str) -> dict[str, Path]:
    """What a step of the example reads."""
    return {role: project.root / item.path for role, item in project.graph[step].inputs.items()}


def job_of(inputs: dict[str, Path], folder: Path) -> Job:
    """A step that reads INPUTS, with FOLDER for what it writes."""
    for name in ("output", "scratch"):
        (folder / name).mkdir(parents=True)
    return Job("real", inputs, folder / "output", folder / "plot.csv", folder / "scratch")


def first_rows(inputs: dict[str, Path], count: int, folder: Path, capacity: int | None = None) -> Path:
    """FOLDER with the first COUNT rows of the order among INPUTS; with CAPACITY, in bins of at most so many tokens."""
    from safetensors.numpy import load_file, save_file

    from stages.mix.packing import packed

    order = {name: values[:count] for name, values in load_file(inputs["order"] / "order.safetensors").items()}
    folder.mkdir(parents=True)
    (folder / "tasks.json").write_text((inputs["order"] / "tasks.json").read_text("utf-8"), "utf-8")
    save_file({name: np.ascontiguousarray(values) for name, values in order.items()}, folder / "order.safetensors")
    if capacity:
        lengths = _rows(folder, inputs).lengths()
        bins, number = packed(lengths, capacity)
        by_bin = np.argsort(bins, kind="stable")
        offsets = np.concatenate([[0], np.cumsum(np.bincount(bins, minlength=number))]).astype(np.int64)
        found = {name: np.ascontiguousarray(values[by_bin]) for name, values in order.items()}
        save_file(found | {"bins": offsets}, folder / "order.safetensors")
    return folder


def _rows(order: Path, inputs: Mapping[str, Path]) -> Any:
    from stages.train.loop.data import Rows

    return Rows.open(order, {role.partition("/")[2]: path for role, path in inputs.items() if role.startswith("tokens/")})


def ours(case: Case, folder: Path) -> list[float]:
    """The losses of this project's loop, whose adapter is kept in FOLDER."""
    from stages.train.loop.acceleration import speed_up
    from stages.train.loop.division import Share
    from stages.train.loop.training import Matter, default_device, work

    began = time.monotonic()
    model = speed_up(case.prepared(), case.parameters)
    matter = Matter(model, _rows(case.job.inputs["order"], case.job.inputs), {}, began)
    curve = work(case.parameters, case.job, matter, Share(), default_device()).curve
    case.parameters.method.save(model, folder)
    return [point.loss for point in curve]


def with_every_logit(case: Case, folder: Path) -> list[float]:
    """The losses of this project's loop if the output layer is applied to every position, not to those that predict supervised tokens."""
    from stages.models import projection

    projection.LARGE = sys.maxsize
    return ours(case, folder)


def bare(case: Case, folder: Path) -> list[float]:
    """The losses of a loop of a few lines, which pads batches as this project does and computes the loss as transformers does."""
    import torch

    from stages.train.loop.batches import below

    rows = _rows(case.job.inputs["order"], case.job.inputs)
    model = case.prepared().train()
    optimizer = torch.optim.AdamW(
        [weight for weight in model.parameters() if weight.requires_grad],
        lr=case.parameters.learning_rate,
        betas=case.parameters.betas,
        weight_decay=case.parameters.weight_decay,
    )
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


def trl_in_bins(case: Case, folder: Path) -> list[float]:
    """The losses of TRL's SFTTrainer on packed rows: the same bins, which it takes without padding, as after its own packing."""
    import datasets

    rows = _rows(case.job.inputs["order"], case.job.inputs)
    values: dict[str, list[list[int]]] = {"input_ids": [], "labels": [], "seq_lengths": []}
    for start, end in pairwise(rows.units().tolist()):
        found = [rows[position] for position in range(start, end)]
        # The first token of a row is never predicted, least of all from the row before.
        labels = [np.where(row.supervised, row.input_ids, -100) for row in found]
        for each in labels:
            each[0] = -100
        values["input_ids"].append(np.concatenate([row.input_ids for row in found]).tolist())
        values["labels"].append(np.concatenate(labels).tolist())
        values["seq_lengths"].append([len(row.input_ids) for row in found])
    return gpu_train.trl(case, folder, datasets.Dataset.from_dict(values), padding_free=True)


LOOPS: dict[str, dict[str, Callable[[Case, Path], list[float]]]] = {
    "padded": {"bare": bare, "trl": gpu_train.trl, "every logit": with_every_logit, "ours": ours},
    "packed": {"trl": trl_in_bins, "every logit": with_every_logit, "ours": ours},
}


def train(given: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Speed in real tokens (padding does not count), memory and losses of one loop; in a process that has done nothing else."""
    import torch
    from transformers import AutoConfig

    from stages.models.out_of_memory import release
    from stages.train.loop.data import global_batches
    from stages.train.memory.peak import peak_memory

    inputs = {role: Path(path) for role, path in given["inputs"].items()}
    rows = _rows(inputs["order"], inputs)
    batching = Packed(length=given["capacity"]) if given["batching"] == "packed" else Padded()
    parameters = Parameters(
        method=Lora(r=16, lora_alpha=32, lora_dropout=0.0),
        global_batch=GlobalBatch(rows=given["batch"]),
        batching=batching,
        micro_batch=given["batch"],
        learning_rate=5e-4,
        schedule=Schedule(kind="constant", warmup_ratio=0.0),
        precision=given["precision"],
        weight_decay=0.01,
    )
    config = AutoConfig.from_pretrained(inputs["model"])
    longest = int(np.add.reduceat(rows.lengths(), rows.units()[:-1]).max())
    share = float(rows.supervised().sum() / rows.lengths().sum())
    case = Real("SmolLM2-135M-Instruct", given["batching"], longest, config, parameters, job_of(inputs, folder / "job"), share)
    (folder / "result").mkdir()
    tokens = int(rows.lengths()[global_batches(rows, given["batch"])[WARM].start :].sum())
    for library in ("peft", "trl") if given["loop"] == "trl" else ("peft",):
        __import__(library)  # memory of the libraries does not count as memory of the training
    release()
    before, watch = reset_peak(), Watch()
    with watch.watching():
        losses = LOOPS[given["batching"]][given["loop"]](case, folder / "result")
    peak = max(0, peak_memory(torch.device("cpu")) - before)
    speed = tokens / (watch.moments[-1] - watch.moments[WARM - 1])
    values = {"tokens_per_second": speed, "peak_memory_bytes": peak, "estimated_bytes": estimated(case), "losses": losses}
    return {**case.names, "loop": given["loop"], "precision": given["precision"], "threads": torch.get_num_threads(), **values}


def trainings(
    inputs: dict[str, Path], folder: Path, precisions: tuple[Literal["float32", "bfloat16"], ...], rows: int, batch: int, repeats: int
) -> list[dict[str, Any]]:
    """Every loop in every precision and layout, in turn: the fastest of REPEATS, so that other work counts for little.

    ROWS rows in steps of BATCH; packed, in steps of one bin, which holds as many tokens as such a step has.
    """
    orders = {"padded": first_rows(inputs, rows, folder / "padded")}
    lengths = _rows(orders["padded"], inputs).lengths()
    capacity = max(int(lengths.max()), -(-int(lengths.sum()) * batch // rows))
    orders["packed"] = first_rows(inputs, rows, folder / "packed", capacity)
    best: dict[tuple[str, str, str], dict[str, Any]] = {}
    for number in range(repeats):
        for precision in precisions:
            for batching, loops in LOOPS.items():
                for loop in loops:
                    names = {"precision": precision, "batching": batching, "loop": loop}
                    given = {**names, "batch": batch if batching == "padded" else 1, "capacity": capacity}
                    read = {role: str(path) for role, path in {**inputs, "order": orders[batching]}.items()}
                    key = (precision, batching, loop)
                    found = in_child("train", {**given, "inputs": read}, folder / f"{number}-{'-'.join(key)}")
                    if key not in best or found["tokens_per_second"] > best[key]["tokens_per_second"]:
                        best[key] = found
    return list(best.values())


def validate(given: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Seconds and losses of this project's validation and of one by transformers' own loss, of the held-out rows of all tasks."""
    import torch

    from stages.models.folders import load_model
    from stages.tokens.files import Tokens
    from stages.train.distributed.processes import Replicated
    from stages.train.loop.batches import below
    from stages.train.loop.data import Rows
    from stages.train.loop.division import Share
    from stages.train.loop.validation import Validator

    files = {role.partition("/")[2]: Path(path) for role, path in given["inputs"].items() if role.startswith("validation/")}
    tasks = {task: Rows.all_of(Tokens.open(path)) for task, path in sorted(files.items())}
    model = load_model(Path(given["inputs"]["model"])).eval()
    ours = Validator(Replicated(model, torch.optim.SGD(model.parameters(), 0.0), 1.0, Share()), tasks, None)
    started = time.perf_counter()
    loss = ours.ask(0, None).loss
    taken = time.perf_counter() - started

    def theirs(size: int) -> tuple[float, float]:
        """Seconds, and the loss per supervised token."""
        started, total, count = time.perf_counter(), 0.0, 0
        with torch.inference_mode():
            for rows in tasks.values():  # by length
                for start in range(0, len(rows), size):
                    positions = range(start, min(start + size, len(rows)))
                    batch = below(positions, [rows[position] for position in positions])
                    supervised = int((batch.labels[:, 1:] != -100).sum())
                    total += float(model(**batch.inputs, labels=batch.labels, use_cache=False).loss) * supervised
                    count += supervised
        return time.perf_counter() - started, total / count

    seconds, other = min(theirs(size) for size in (given["batches"] or BATCHES))
    rows = sum(map(len, tasks.values()))
    return {"rows": rows, "ours_s": taken, "transformers_s": seconds, "ratio": seconds / taken, "losses_apart": abs(loss / other - 1)}


def questions(project: Project, folder: Path, rows: int) -> dict[str, str]:
    """Inputs of a predict step of the example with ROWS held-out rows of its tasks, one task as many as the other."""
    inputs = {role: path for role, path in inputs_of(project, f"predict-{EXPERIMENT}").items() if role != "adapter"}
    roles = sorted(role for role in inputs if role.startswith("test/"))
    folder.mkdir()
    for number, role in enumerate(roles):
        path = inputs[role]
        lines = [line for name in (path, path.with_name("validation.jsonl")) for line in name.read_text("utf-8").splitlines()]
        inputs[role] = folder / f"{role.partition('/')[2]}.jsonl"
        inputs[role].write_text("".join(f"{line}\n" for line in lines[: (rows + number) // len(roles)]), "utf-8")
    return {role: str(path) for role, path in inputs.items()}


def answer(given: dict[str, Any], folder: Path) -> dict[str, Any]:
    """This project's predict step: its seconds, prompts and answers."""
    from stages.predict.body import run as predict

    tasks = {task: {"max_new_tokens": limit} for task, limit in given["limits"].items()}
    parameters = Prediction.model_validate(with_tuples({**given["parameters"], "tasks": tasks, "rows": None}))
    job = job_of({role: Path(path) for role, path in given["inputs"].items()}, folder / "job")
    started = time.perf_counter()
    predict(parameters, job)
    seconds = time.perf_counter() - started
    said = [json.loads(line) for path in sorted(job.output.glob("*.jsonl")) for line in path.read_text("utf-8").splitlines()]
    return {"seconds": seconds, "prompts": [row["prompt"] for row in said], "answers": [row["answer"] for row in said]}


def generated(given: dict[str, Any], folder: Path) -> dict[str, Any]:
    """What transformers answers, greedily, in batches of rows of like length: its seconds, with loading, and the batch size it chose."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    started = time.perf_counter()
    tokenizer = AutoTokenizer.from_pretrained(given["inputs"]["model"], padding_side="left")
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    model: Any = AutoModelForCausalLM.from_pretrained(given["inputs"]["model"], dtype=torch.float32).eval()
    if "adapter" in given["inputs"]:
        model = PeftModel.from_pretrained(model, given["inputs"]["adapter"]).eval()
    loaded = time.perf_counter() - started
    asked = [
        tokenizer.apply_chat_template([{"role": "user", "content": text}], add_generation_prompt=True, tokenize=False)
        for text in given["prompts"]
    ]
    longest = max(given["limits"].values())

    def answers(numbers: Sequence[int], size: int) -> tuple[float, dict[int, str]]:
        began = time.perf_counter()
        found: dict[int, str] = {}
        order = sorted(numbers, key=lambda number: len(asked[number]))
        for start in range(0, len(order), size):
            chosen = order[start : start + size]
            tokens = tokenizer([asked[number] for number in chosen], return_tensors="pt", padding=True, add_special_tokens=False)
            with torch.inference_mode():
                made = model.generate(**tokens, max_new_tokens=longest, do_sample=False)[:, tokens["input_ids"].shape[1] :]
            found |= dict(zip(chosen, tokenizer.batch_decode(made, skip_special_tokens=True), strict=True))
        return time.perf_counter() - began, found

    sizes = given["batches"] or BATCHES
    part = range(0, len(asked), SAMPLE)
    size = min(sizes, key=lambda size: answers(part, size)[0]) if len(sizes) > 1 else sizes[0]
    seconds, found = answers(range(len(asked)), size)
    return {"seconds": loaded + seconds, "batch": size, "answers": [found[number] for number in range(len(asked))]}


def answers(project: Project, folder: Path, rows: int, adapter: Path, batches: tuple[int, ...]) -> list[dict[str, Any]]:
    """Seconds of this project's predict step and of transformers' generate for ROWS rows, alone and with ADAPTER, and equal answers."""
    step = project.graph[f"predict-{EXPERIMENT}"]
    assert isinstance(step.parameters, Prediction)
    inputs = questions(project, folder, rows)
    given = {
        "parameters": step.parameters.model_dump(mode="json", exclude={"tasks", "rows"}),
        "limits": {task: one.max_new_tokens for task, one in step.parameters.tasks.items()},
        "batches": batches,
    }
    found = []
    for model, more in (("base", {}), ("adapter", {"adapter": str(adapter)})):
        case = {**given, "inputs": inputs | more}
        mine = in_child("answer", case, folder / f"{model}-ours")
        theirs = in_child("generated", {**case, "prompts": mine["prompts"]}, folder / f"{model}-transformers")
        equal = sum(a == b for a, b in zip(mine["answers"], theirs["answers"], strict=True))
        seconds = {"ours_s": mine["seconds"], "transformers_s": theirs["seconds"], "ratio": theirs["seconds"] / mine["seconds"]}
        found.append({"model": model, "rows": len(mine["prompts"]), "batch": theirs["batch"], "equal_answers": equal, **seconds})
    return found


WORK: dict[str, Callable[[dict[str, Any], Path], dict[str, Any]]] = {
    "train": train,
    "validate": validate,
    "answer": answer,
    "generated": generated,
}


def in_child(what: str, given: dict[str, Any], folder: Path) -> dict[str, Any]:
    """One case in a process of its own, whose threads and peak of memory are nobody else's."""
    folder.mkdir()
    (folder / "given.json").write_text(json.dumps(given), "utf-8")
    environment = dict(os.environ) | {"PYTHONPATH": str(ROOT), "MALLOC_MMAP_THRESHOLD_": str(MAPPED)}
    command = [sys.executable, __file__, "--case", what, str(folder)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{what} in {folder.name}: {done.stderr}")
    found: dict[str, Any] = json.loads((folder / "found.json").read_text("utf-8"))
    return found


def child(what: str, folder: Path) -> None:
    """The work of a process of its own."""
    prepare_process()
    given = json.loads((folder / "given.json").read_text("utf-8"))
    with contextlib.redirect_stdout(io.StringIO()):
        found = WORK[what](given, folder)
    (folder / "found.json").write_text(json.dumps(found), "utf-8")


def ratios(rows: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """This project's training compared with the others, in each precision, padded and packed."""
    for precision in dict.fromkeys(row["precision"] for row in rows):
        by = {(row["method"], row["loop"]): row for row in rows if row["precision"] == precision}
        for method, loops in LOOPS.items():
            mine = by[method, "ours"]
            for loop in (loop for loop in loops if loop != "ours"):
                other = by[method, loop]
                apart = max(abs(a / b - 1) for a, b in zip(mine["losses"], other["losses"], strict=True))
                speed, memory = (mine[value] / other[value] for value in ("tokens_per_second", "peak_memory_bytes"))
                named = {"precision": precision, "batches": method, "compared_with": loop}
                yield {**named, "speed": speed, "memory": memory, "losses_apart": apart}


def measure(quick: bool) -> dict[str, Any]:
    """Everything, in one run."""
    with tempfile.TemporaryDirectory(prefix="real-") as name:
        folder = Path(name)
        project = prepared(folder / "workspace")
        inputs = inputs_of(project, f"train-{EXPERIMENT}")
        (folder / "trainings").mkdir()
        trained = trainings(inputs, folder / "trainings", *((("float32",), 8, 4, 1) if quick else (("float32", "bfloat16"), 80, 8, 2)))
        batches: tuple[int, ...] = BATCHES[:1] if quick else ()
        adapter = folder / "trainings/0-float32-padded-ours/result"
        answered = answers(project, folder / "answers", 3 if quick else 200, adapter, batches)
        read = {role: str(path) for role, path in inputs.items()}
        validated = in_child("validate", {"inputs": read, "batches": batches}, folder / "validation")
    found = {"trainings": trained, "ratios": list(ratios(trained)), "answers": answered, "validation": validated}
    return {**found, "machine": machine()}


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
        [
            *(row[name] for name in ("precision", "batches", "compared_with")),
            f"{row['speed']:.2f}",
            f"{row['memory']:.2f}",
            f"{row['losses_apart']:.1e}",
        ]
        for row in found["ratios"]
    ]
    sentences = [
        f"{row['model']}: {row['rows']} rows answered in {row['ours_s']:.1f} s, by transformers in {row['transformers_s']:.1f} s "
        f"({row['ratio']:.2f} times as long, in batches of {row['batch']}); {row['equal_answers']} answers are equal."
        for row in found["answers"]
    ]
    held = found["validation"]
    sentences.append(
        f"validation: {held['rows']} rows in {held['ours_s']:.1f} s, by transformers' loss in {held['transformers_s']:.1f} s "
        f"({held['ratio']:.2f} times as long); losses are {held['losses_apart']:.1e} apart."
    )
    ratios_table = table(["precision", "batches", "ours compared with", "speed", "memory", "losses apart"], compared)
    return "\n\n".join([found["machine"], table(columns, rows), ratios_table, "\n".join(sentences)])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one JSON value as the last line of stdout")
    parser.add_argument("--quick", action="store_true", help="float32 only, few rows, no repeats")
    parser.add_argument("--case", nargs=2, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.case:
        child(chosen.case[0], Path(chosen.case[1]))
        return
    found = measure(chosen.quick)
    print(json.dumps(found) if chosen.json else report(found))


if __name__ == "__main__":
    main()
