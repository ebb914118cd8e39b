"""Tokens per second from JSONL rows to packed bins on disk, compared with the bare tokenizer and TRL's preparation of the same rows.

    python benchmarks/tokenize.py [--quick] [--json] [--rows N] [--no-scaling]

floor: `encode_batch_fast` in a bare loop. trl: SFTTrainer's preparation with completion-only loss and packing, from rows in memory.
ours: the bodies of tokenize and mix, from the JSONL file, with all checks. Each is one process with the tokenizer's own threads.
"""

import argparse
import contextlib
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

sys.path[0] = str(Path(__file__).resolve().parents[1])  # run as a script: and a module of Python's own has the name of this one

from benchmarks.common import ROOT, environment, machine, table  # noqa: E402
from benchmarks.token_rows import Pair, real_pairs, repeated, synthetic_pairs, write_rows, write_tokenizer  # noqa: E402

LENGTH = 1_024
SIZES = (10_000, 100_000, 1_000_000)


def cpu_seconds() -> float:
    """What all threads of this process have computed so far: on a machine with other work it tells more than the clock does."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def floor(folder: Path, pairs: list[Pair]) -> dict[str, Any]:
    """The bare tokenizer over prompts and completions."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    texts = [text for pair in pairs for text in pair]
    start, busy = time.perf_counter(), cpu_seconds()
    encoded = [tokenizer.encode_batch_fast(texts[at : at + 2_048], add_special_tokens=False) for at in range(0, len(texts), 2_048)]
    seconds, busy = time.perf_counter() - start, cpu_seconds() - busy
    return {"tokens": sum(len(found) for batch in encoded for found in batch), "seconds": seconds, "cpu_seconds": busy}


def trl(folder: Path, pairs: list[Pair]) -> dict[str, Any]:
    """TRL's preparation of the same rows."""
    from datasets import Dataset, disable_progress_bars
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
    from trl import SFTConfig, SFTTrainer

    disable_progress_bars()
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"), eos_token="<|endoftext|>", pad_token="<|endoftext|>")
    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), **sizes))
    config = SFTConfig(
        output_dir=str(folder / "trl"),
        max_length=LENGTH,
        packing=True,
        completion_only_loss=True,
        use_cpu=True,
        report_to="none",
        bf16=False,
    )
    rows = Dataset.from_dict({"prompt": [prompt for prompt, _ in pairs], "completion": [completion for _, completion in pairs]})
    trainer = SFTTrainer(model, config, train_dataset=rows.select(range(2)), processing_class=tokenizer)
    start, busy = time.perf_counter(), cpu_seconds()
    found = trainer._prepare_dataset(rows, tokenizer, config, True, None, "train")
    seconds, busy = time.perf_counter() - start, cpu_seconds() - busy
    tokens = sum(map(len, found["input_ids"]))
    return {"tokens": tokens, "seconds": seconds, "cpu_seconds": busy, "packing_efficiency": tokens / (len(found) * LENGTH)}


def ours(folder: Path) -> dict[str, Any]:
    """The bodies of tokenize and mix, from `rows.jsonl` in FOLDER to bins on disk."""
    from stages import mix, tokenize
    from stages.mix import body as mix_body
    from stages.process.job import Job
    from stages.tokenize import body as tokenize_body

    for name in ("tokens", "mixture"):
        shutil.rmtree(folder / name, ignore_errors=True)
        (folder / name).mkdir()
    inputs = {"train": folder / "rows.jsonl", "validation": folder / "none.jsonl"}
    inputs |= {f"tokenizer/{name}": folder / name for name in ("tokenizer.json", "tokenizer_config.json")}
    inputs["validation"].touch()
    start, busy = time.perf_counter(), cpu_seconds()
    parameters = tokenize.Parameters(max_length=LENGTH, over_length="truncate_prompt_left")
    counts = tokenize_body.run(parameters, Job("tokenize", inputs, folder / "tokens", None, folder))
    tokenized = time.perf_counter()
    tokens = {"tokens/rows": folder / "tokens/train.safetensors"}
    found = mix_body.run(mix.Parameters(bin_tokens=LENGTH), Job("mix", tokens, folder / "mixture", None, folder))
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {
        "rows": found["rows"],
        "tokens": counts["train"]["tokens"],
        "seconds": seconds,
        "cpu_seconds": cpu_seconds() - busy,
        "tokenize_seconds": tokenized - start,
        "packing_efficiency": found["packing_efficiency"],
        "peak_memory_mb": round(peak, 1),
    }


def child(part: str, folder: Path, rows: int) -> dict[str, Any]:
    """One measurement in a process of its own, so that none profits from another's caches or pays for its memory."""
    command = [sys.executable, __file__, "--part", part, "--folder", str(folder), "--rows", str(rows)]
    # TRL's own results of an earlier run must not be taken from datasets' cache.
    env = environment(folder / "cache", ROOT) | {"HF_HOME": str(folder / "hub"), "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "true"}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{part} fails:\n{done.stderr}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def compare(rows: int, repeats: int) -> dict[str, Any]:
    """All three on the same real rows; medians of REPEATS runs."""
    pairs = repeated(real_pairs(), rows)[: rows or None]
    with tempfile.TemporaryDirectory(prefix="tokenize-") as name:
        folder = Path(name)
        write_tokenizer(folder, list(dict.fromkeys(pairs)))
        write_rows(folder / "rows.jsonl", pairs)
        runs: dict[str, list[dict[str, Any]]] = {"floor": [], "trl": [child("trl", folder, rows)], "ours": []}
        # In turns, so that other work on the machine hits both alike; TRL takes too long to be asked twice.
        for part in ("floor", "ours") * repeats:
            runs[part].append(child(part, folder, rows))
    parts = {part: sorted(found, key=lambda run: run["seconds"])[len(found) // 2] for part, found in runs.items()}
    rates = {part: round(found["tokens"] / found["seconds"]) for part, found in parts.items()}
    efficiency = {"packing_efficiency": parts["ours"]["packing_efficiency"], "trl_packing_efficiency": parts["trl"]["packing_efficiency"]}
    return {**rates, **{name: round(value, 5) for name, value in efficiency.items()}, "rows": rows, "parts": parts}


def scale(rows: int) -> dict[str, Any]:
    """Our own work on so many synthetic rows."""
    with tempfile.TemporaryDirectory(prefix="tokenize-") as name:
        folder = Path(name)
        write_tokenizer(folder, list(synthetic_pairs(min(rows, 5_000))))
        write_rows(folder / "rows.jsonl", synthetic_pairs(rows))
        return child("ours", folder, rows)


def measure(part: str, folder: Path, rows: int) -> dict[str, Any]:
    """What a child process does."""
    if part == "ours":
        return ours(folder)
    pairs = repeated(real_pairs(), rows)[: rows or None]
    with contextlib.redirect_stdout(sys.stderr):
        return (floor if part == "floor" else trl)(folder, pairs)


def report(content: Mapping[str, Any]) -> str:
    """What was measured as tables for people."""
    names = {"floor": "encode_batch_fast, bare loop", "trl": "TRL: tokenize, mask, pack", "ours": "tokenize + mix, JSONL to bins"}
    busy = {part: content["parts"][part]["cpu_seconds"] for part in names}
    rows = [[names[part], f"{content[part]:,}", f"{content[part] / content['floor']:.2f}", f"{busy[part]:.1f} s"] for part in names]
    scaling = [
        [
            f"{found['rows']:,}",
            f"{found['seconds']:.1f} s",
            f"{found['tokens'] / found['seconds']:,.0f}",
            f"{found['peak_memory_mb']:.0f} MB",
        ]
        for found in content["scaling"]
    ]
    packing = f"packing efficiency at {LENGTH}: {content['packing_efficiency']}, TRL {content['trl_packing_efficiency']}"
    tables = [table(["way", "tokens/s", "/ floor", "CPU time"], rows), packing, table(["rows", "time", "tokens/s", "peak memory"], scaling)]
    return "\n\n".join([content["machine"], *tables])


def options() -> argparse.Namespace:
    """What the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one JSON value as the last line of stdout")
    parser.add_argument("--quick", action="store_true", help="a few hundred rows")
    parser.add_argument("--rows", type=int, default=36_000, metavar="N", help="real rows, repeated (default: 36000)")
    parser.add_argument("--no-scaling", action="store_true", help="leave the synthetic rows out")
    parser.add_argument("--part", choices=("floor", "trl", "ours"), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    """Measure everything in one run and print it."""
    chosen = options()
    if chosen.part:
        print(json.dumps(measure(chosen.part, chosen.folder, chosen.rows)))
        return
    sizes = () if chosen.no_scaling else (1_000,) if chosen.quick else SIZES
    content = compare(600 if chosen.quick else chosen.rows, 1 if chosen.quick else 3)
    content |= {"scaling": [scale(rows) for rows in sizes], "machine": machine()}
    # The numbers that are asked for stand first; a reader may take them alone.
    print(json.dumps(content) if chosen.json else report(content))


if __name__ == "__main__":
    # datasets and torch would otherwise start threads that wait by spinning.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    main()
