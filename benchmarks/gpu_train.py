"""Trainings of this project compared with TRL's SFTTrainer and a plain HF Trainer: speed, memory, losses, and the memory estimate's error.

    python benchmarks/gpu_train.py [--quick] [--json] [--minutes 10]

Everything is measured in one process, on the same rows and the same random weights. It needs torch, transformers, peft, bitsandbytes,
trl and datasets, no network and no files; flash-attn and liger-kernel are used by all where they are installed. Without a GPU, or with
`--quick`, the models are tiny. What the minutes did not suffice for, or what found no memory, is named in `left_out`.
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
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks.common import machine, table
from benchmarks.training import make_job
from stages.models.folders import prepare_process
from stages.process.job import Job
from stages.train import GlobalBatch, Parameters, Schedule
from stages.train.methods import Lora, Qlora

LOOPS = ("ours", "trl", "trainer")
_WARM = 2
"""Steps before the clock starts."""


@dataclass(frozen=True)
class Size:
    """What is trained, on how much."""

    models: dict[str, dict[str, Any]]
    """transformers' configurations, by name."""
    sequences: tuple[int, ...]
    rows: int
    """Rows of a global batch."""
    micro_batch: int
    steps: int


LARGE = Size(
    {
        "Llama of 1B": {
            **{"model_type": "llama", "hidden_size": 2048, "num_hidden_layers": 16, "num_attention_heads": 32, "num_key_value_heads": 8},
            **{"intermediate_size": 8192, "vocab_size": 128_256, "tie_word_embeddings": True, "max_position_embeddings": 131_072},
        },
        "Falcon of 7B": {
            **{"model_type": "falcon", "hidden_size": 4544, "num_hidden_layers": 32, "num_attention_heads": 71, "vocab_size": 65_024},
            **{"multi_query": True, "parallel_attn": True, "new_decoder_architecture": False, "bias": False, "alibi": False},
        },
    },
    sequences=(2048, 4096),
    rows=8,
    micro_batch=2,
    steps=6,
)
TINY = Size(
    {
        "tiny Llama": {
            **{"model_type": "llama", "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2},
            **{"intermediate_size": 64, "vocab_size": 700, "max_position_embeddings": 128},
        },
        "tiny Falcon": {
            **{"model_type": "falcon", "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 700},
            **{"multi_query": True, "parallel_attn": True, "new_decoder_architecture": False, "bias": False, "alibi": False},
        },
    },
    sequences=(32,),
    rows=4,
    micro_batch=2,
    steps=4,
)
METHODS: dict[str, Lora | Qlora] = {"lora": Lora(r=16), "qlora": Qlora(r=16, compute_dtype="bfloat16")}
CPU_METHODS: dict[str, Lora | Qlora] = {"lora": Lora(r=4), "qlora": Qlora(r=4)}


@dataclass
class Watch:
    """The moments at which optimizers have stepped, whatever loop they step in."""

    moments: list[float] = field(default_factory=list)

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Note each step of any optimizer meanwhile."""
        from torch.optim.optimizer import register_optimizer_step_post_hook

        handle = register_optimizer_step_post_hook(self._note)
        try:
            yield
        finally:
            handle.remove()

    def _note(self, *_: Any) -> None:
        import torch

        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.moments.append(time.perf_counter())

    def seconds_per_step(self) -> float:
        """Seconds of a step, the first ones left out."""
        return (self.moments[-1] - self.moments[_WARM - 1]) / (len(self.moments) - _WARM)


@dataclass(frozen=True)
class Case:
    """One model, method and length; every loop trains it from the same weights on the same rows."""

    model: str
    method: str
    sequence: int
    config: Any
    parameters: Parameters
    job: Job
    supervised: float = 1.0
    """Fraction of the rows' tokens that are supervised."""

    @property
    def names(self) -> dict[str, Any]:
        """What tells this case from the others."""
        return {"model": self.model, "method": self.method, "sequence": self.sequence}

    def prepared(self) -> Any:
        """The model with its fresh adapter, on its device."""
        import torch
        from transformers import AutoModelForCausalLM

        from stages.models.attention import choose
        from stages.models.folders import model_class
        from stages.models.quantisation import quantise
        from stages.train.loop.precision import prepare_precision, weights_dtype
        from stages.train.loop.training import default_device

        prepare_precision(self.parameters)
        dtype = weights_dtype(self.parameters)
        attention = choose("auto", model_class(self.config), dtype).implementation
        torch.manual_seed(0)
        with torch.device(default_device()):
            model = AutoModelForCausalLM.from_config(self.config, dtype=getattr(torch, dtype), attn_implementation=attention)
        if self.parameters.method.quantisation:
            quantise(model, self.parameters.method.quantisation)
        torch.manual_seed(1)
        return self.parameters.method.prepare(model)


def ours(case: Case, folder: Path) -> list[float]:
    """The losses of this project's loop."""
    from stages.train.loop.acceleration import speed_up
    from stages.train.loop.data import Rows
    from stages.train.loop.division import Share
    from stages.train.loop.training import Matter, default_device, work

    began = time.monotonic()
    rows = Rows.open(case.job.inputs["order"], case.job.group("tokens"))
    model = speed_up(case.prepared(), case.parameters)
    return [point.loss for point in work(case.parameters, case.job, Matter(model, rows, {}, began), Share(), default_device()).curve]


def trl(case: Case, folder: Path, dataset: Any = None, **settings: Any) -> list[float]:
    """The losses of TRL's SFTTrainer, with what its documentation recommends for speed and memory; SETTINGS are further ones of it.

    DATASET: its rows, in place of the case's own.
    """
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast
    from trl import SFTConfig, SFTTrainer

    more = {"max_length": None, "dataset_kwargs": {"skip_prepare_dataset": True}, "shuffle_dataset": False}
    words = Tokenizer(models.WordLevel({f"w{number}": number for number in range(10)}, "w2"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, pad_token="w0", eos_token="w1")
    config = SFTConfig(**_arguments(case, folder), **more, **settings)
    rows = _dataset(case) if dataset is None else dataset
    return _losses(_in_order(SFTTrainer)(case.prepared(), config, train_dataset=rows, processing_class=tokenizer))


def trainer(case: Case, folder: Path) -> list[float]:
    """The losses of transformers' Trainer with a few lines around it."""
    import torch
    from transformers import Trainer, TrainingArguments

    def collate(rows: list[dict[str, Any]]) -> dict[str, Any]:
        return {name: torch.tensor([row[name] for row in rows]) for name in ("input_ids", "labels")}

    arguments = TrainingArguments(**_arguments(case, folder), remove_unused_columns=False)
    return _losses(_in_order(Trainer)(case.prepared(), arguments, train_dataset=_dataset(case), data_collator=collate))


def _arguments(case: Case, folder: Path) -> dict[str, Any]:
    """The settings of transformers' trainers that are those of this project's training."""
    p = case.parameters
    assert p.micro_batch is not None
    return {
        "output_dir": str(folder),
        "per_device_train_batch_size": p.micro_batch,
        "gradient_accumulation_steps": p.global_batch.rows // p.micro_batch,
        "num_train_epochs": 1,
        "learning_rate": p.learning_rate,
        "weight_decay": p.weight_decay,
        "lr_scheduler_type": "constant",
        "optim": "adamw_torch_fused",
        "max_grad_norm": p.max_grad_norm,
        "bf16": p.precision == "bfloat16",
        "use_cpu": not _has_gpu(),
        "gradient_checkpointing": p.gradient_checkpointing,
        "gradient_checkpointing_kwargs": {"use_reentrant": False},
        "use_liger_kernel": p.kernels == "liger",
        "report_to": "none",
        "save_strategy": "no",
        "logging_steps": 1,
        "disable_tqdm": True,
    }


def _in_order(trainer: Any) -> Any:
    """TRAINER taking the rows one after another, as they lie."""

    class InOrder(trainer):
        """The same, without drawing."""

        def _get_train_sampler(self, *_: Any) -> Any:
            from torch.utils.data import SequentialSampler

            return SequentialSampler(self.train_dataset)

    return InOrder


def _dataset(case: Case) -> Any:
    import datasets
    import numpy as np

    from stages.train.loop.data import Rows

    rows = Rows.open(case.job.inputs["order"], case.job.group("tokens"))
    found = [rows[position] for position in range(len(rows))]
    labels = [np.where(row.supervised, row.input_ids, -100).tolist() for row in found]
    return datasets.Dataset.from_dict({"input_ids": [row.input_ids.tolist() for row in found], "labels": labels})


def _losses(trainer: Any) -> list[float]:
    trainer.train()
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def _has_gpu() -> bool:
    import torch

    return bool(torch.cuda.is_available())


def measure_one(case: Case, loop: str, folder: Path) -> dict[str, Any]:
    """Speed, memory and losses of one loop."""
    import torch

    from engine.estimate.methods import counts
    from engine.estimate.models import model_of
    from stages.models.out_of_memory import release
    from stages.train.logging.loggers import utilization
    from stages.train.loop.training import default_device
    from stages.train.memory.peak import peak_memory

    loops: dict[str, Callable[[Case, Path], list[float]]] = {"ours": ours, "trl": trl, "trainer": trainer}
    if case.parameters.threads:
        torch.set_num_threads(case.parameters.threads)
    release()
    before, watch = reset_peak(), Watch()
    with watch.watching(), contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        losses = loops[loop](case, folder)
    peak = max(0, peak_memory(default_device()) - before)  # what a tiny model takes may have lain free in the process before
    speed = case.parameters.global_batch.rows * case.sequence / watch.seconds_per_step()
    device = torch.cuda.get_device_name() if _has_gpu() else "cpu"
    known = model_of(case.config.to_dict())
    counted = counts(known, case.parameters.method) if known else None
    trainable = counted.trained if counted else 0
    return {
        **case.names,
        "loop": loop,
        "tokens_per_second": speed,
        "peak_memory_bytes": peak,
        "model_flops_utilization": utilization(speed, _parameters(case.config), trainable, 1, device),
        "losses": losses,
    }


def _parameters(config: Any) -> int:
    """Weights of a model of this configuration."""
    import torch
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        return int(AutoModelForCausalLM.from_config(config).num_parameters())


def reset_peak() -> int:
    """Let the peak of memory begin anew; the bytes that are held now."""
    import torch

    if _has_gpu():
        torch.cuda.reset_peak_memory_stats()
        return int(torch.cuda.memory_allocated())
    from stages.train.memory.peak import peak_memory

    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # proc(5): sets the high-water mark to what is resident
    return peak_memory(torch.device("cpu"))


def estimated(case: Case) -> int | None:
    """Bytes that the plan would say this training takes."""
    from engine.estimate.training import Matter, estimate

    found = estimate(case.parameters, Matter(case.config.to_dict(), case.sequence, supervised=case.supervised))
    return found.memory.total if found else None


def cases(size: Size, folder: Path) -> Iterator[Case]:
    """Every case, short rows and small models first."""
    from transformers import AutoConfig

    gpu = _has_gpu()
    liger = gpu and find_spec("liger_kernel") is not None
    for sequence in size.sequences:
        job = make_job(folder / str(sequence), folder, size.rows * size.steps, sequence, sequence)
        for model, values in size.models.items():
            config = AutoConfig.for_model(**values)
            for name, method in (METHODS if gpu else CPU_METHODS).items():
                parameters = Parameters(
                    method=method,
                    global_batch=GlobalBatch(rows=size.rows),
                    micro_batch=size.micro_batch,
                    learning_rate=1e-4,
                    schedule=Schedule(kind="constant", warmup_ratio=0.0),
                    precision="bfloat16" if gpu else "float32",
                    gradient_checkpointing=True,
                    kernels="liger" if liger else "own",
                    threads=None if gpu else 1,
                )
                yield Case(model, name, sequence, config, parameters, job)


def measure(quick: bool, minutes: float) -> dict[str, Any]:
    """Every case in every loop, as far as time and memory go."""
    prepare_process(None if _has_gpu() else 1)
    from stages.models.out_of_memory import is_out_of_memory

    size = LARGE if _has_gpu() and not quick else TINY
    until, rows, left_out = time.monotonic() + 60 * minutes, [], []
    with tempfile.TemporaryDirectory(prefix="gpu-train-") as name:
        for number, case in enumerate(cases(size, Path(name))):
            for loop in LOOPS:
                folder = Path(name) / f"{number}-{loop}"
                if time.monotonic() > until:
                    left_out.append({**case.names, "loop": loop, "why": "the time was over"})
                    continue
                try:
                    rows.append(measure_one(case, loop, folder) | {"estimated_bytes": estimated(case)})
                except (MemoryError, RuntimeError) as error:
                    if not is_out_of_memory(error):
                        raise
                    left_out.append({**case.names, "loop": loop, "why": "out of memory"})
    return {**summary(rows), "rows": rows, "left_out": left_out, "device": _device(), "machine": machine()}


def _device() -> str:
    import torch

    return torch.cuda.get_device_name() if _has_gpu() else "cpu"


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """This project's loop compared with the others: ratios of speed and memory, how far losses are apart, the estimate's largest error."""
    mine = {_key(row): row for row in rows if row["loop"] == "ours"}
    pairs = [(mine[_key(row)], row) for row in rows if row["loop"] != "ours" and _key(row) in mine]
    apart = [abs(a / b - 1) for one, other in pairs for a, b in zip(one["losses"], other["losses"], strict=True)]
    # What a tiny model takes may have lain free in the process before.
    told = [row for row in mine.values() if row["estimated_bytes"] and row["peak_memory_bytes"]]
    errors = [row["estimated_bytes"] / row["peak_memory_bytes"] - 1 for row in told]
    peaks = [(one["peak_memory_bytes"], other["peak_memory_bytes"]) for one, other in pairs if other["peak_memory_bytes"]]
    return {
        "least_speed_ratio": min((one["tokens_per_second"] / other["tokens_per_second"] for one, other in pairs), default=None),
        "largest_memory_ratio": max((one / other for one, other in peaks), default=None),
        "loss_max_relative_difference": max(apart, default=None),
        "estimate_max_error": max(errors, key=abs, default=None),
    }


def _key(row: dict[str, Any]) -> tuple[Any, ...]:
    return row["model"], row["method"], row["sequence"]


def report(found: dict[str, Any]) -> str:
    """What was measured as a table for people."""
    columns = ["model", "method", "sequence", "loop", "tokens/s", "peak GB", "estimated GB", "utilization", "last loss"]
    shown = [
        [
            *(str(row[name]) for name in ("model", "method", "sequence", "loop")),
            f"{row['tokens_per_second']:,.0f}",
            f"{row['peak_memory_bytes'] / 1e9:.2f}",
            f"{(row['estimated_bytes'] or 0) / 1e9:.2f}",
            "" if row["model_flops_utilization"] is None else f"{row['model_flops_utilization']:.0%}",
            f"{row['losses'][-1]:.4f}",
        ]
        for row in found["rows"]
    ]
    left = [f"left out: {one['model']}, {one['method']}, {one['sequence']}, {one['loop']}: {one['why']}" for one in found["left_out"]]
    return "\n".join([f"{found['device']}, {found['machine']}", "", table(columns, shown), *left])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one JSON value as the last line of stdout")
    parser.add_argument("--quick", action="store_true", help="tiny models, also where there is a GPU")
    parser.add_argument("--minutes", type=float, default=10.0, help="begin nothing after so many minutes (default: 10)")
    chosen = parser.parse_args()
    found = measure(chosen.quick, chosen.minutes)
    print(json.dumps(found) if chosen.json else report(found))


if __name__ == "__main__":
    main()
