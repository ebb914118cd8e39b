"""Portable numerics compared with native ones: time of a training step, their ratio, and the digests of what is trained.

    python benchmarks/numerics.py [--quick] [--json]

Two trainings, each with both numerics in turn and in processes of their own: the quickstart's tiny Falcon, and a Llama of a hundred million
parameters in float32, both with random weights and rows. Digests of `portable` are to be compared between machines.
"""

import sys

if __name__ == "__main__":
    # Run as a script: this folder itself must not be searched.
    sys.path[0] = __file__.rpartition("/benchmarks/")[0] or "."

import argparse
import hashlib
import json
import os
import statistics
import subprocess
import time
from typing import Any

from benchmarks.common import ROOT, machine, table
from stages.process import numerics

FALCON = {"hidden_size": 128, "num_hidden_layers": 3, "num_attention_heads": 4, "num_kv_heads": 4, "vocab_size": 700}
LLAMA = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 2048, "vocab_size": 16_000}
SMALLER = {"hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 128, "vocab_size": 700}


def work(case: str, asked: numerics.Numerics, steps: int, quick: bool) -> dict[str, Any]:
    """Seconds of each of STEPS steps after the first, by clock and processor, and the weights' digest; to be called in a fresh process."""
    numerics.begin(asked)
    from stages.models.folders import count_parameters, prepare_process

    prepare_process()
    import torch
    from transformers import FalconConfig, FalconForCausalLM, LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    if case == "tiny Falcon":
        model: Any = FalconForCausalLM(FalconConfig(**FALCON, new_decoder_architecture=True))
        rows, length = 16, 100
    else:
        model = LlamaForCausalLM(LlamaConfig(**(SMALLER if quick else LLAMA)))
        rows, length = 4, 128
    torch.set_num_threads(numerics.divide(None, count_parameters(model)))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)  # as training does; its roots are the processor's own, exact
    seconds, processor = [], []
    for _ in range(steps + 1):
        ids = torch.randint(0, 700, (rows, length))
        started, used = time.perf_counter(), time.process_time()
        model(input_ids=ids, labels=ids).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        seconds.append(time.perf_counter() - started)
        processor.append(time.process_time() - used)
    digest = hashlib.sha256(b"".join(weight.detach().numpy().tobytes() for weight in model.parameters()))
    told = {"parameters": count_parameters(model), "digest": digest.hexdigest()[:12], "parts": torch.get_num_threads()}
    return told | {"seconds": seconds[1:], "processor": processor[1:]}


def measure(case: str, steps: int, turns: int, quick: bool) -> dict[str, Any]:
    """Both numerics in turn, TURNS times each: the median of the seconds of all steps, and the digest, which must be the same each time."""
    found: dict[str, list[dict[str, Any]]] = {"portable": [], "native": []}
    inherited = {name: value for name, value in os.environ.items() if name not in numerics.HANDED_ON}
    for _ in range(turns):
        for asked, results in found.items():
            command = [sys.executable, __file__, "--work", case, asked, "--steps", str(steps), *(["--quick"] if quick else [])]
            done = subprocess.run(command, cwd=ROOT, env=inherited, stdout=subprocess.PIPE, text=True, check=True)
            results.append(json.loads(done.stdout.splitlines()[-1]))
    row: dict[str, Any] = {"model": case, "parameters": found["portable"][0]["parameters"]}
    for asked, results in found.items():
        row[f"{asked}_s"] = statistics.median(second for result in results for second in result["seconds"])
        row[f"{asked}_processor_s"] = statistics.median(second for result in results for second in result["processor"])
        row[f"{asked}_parts"] = results[0]["parts"]
        row[f"{asked}_digests"] = sorted({result["digest"] for result in results})
    return row | {"ratio": row["portable_s"] / row["native_s"]}


def main() -> None:
    """Print the table, and with --json all numbers as the last line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few steps and a smaller Llama: shows that it runs, not how fast")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--work", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        case, asked = options.work
        print(json.dumps(work(case, asked, options.steps, options.quick)))
        return
    turns = 1 if options.quick else 3
    cases = {"tiny Falcon": 2 if options.quick else 30, "Llama": 2 if options.quick else 5}
    rows = [measure(case, options.steps or steps, turns, options.quick) for case, steps in cases.items()]
    texts = [
        [
            *(
                row["model"],
                f"{row['parameters'] / 1e6:.1f} M",
                f"{row['portable_s']:.3f} s",
                f"{row['native_s']:.3f} s",
                f"{row['ratio']:.2f}",
            ),
            *(" ".join(row[f"{asked}_digests"]) for asked in ("portable", "native")),
        ]
        for row in rows
    ]
    print(f"{machine()}\n")
    print(table(["model", "parameters", "portable, a step", "native, a step", "ratio", "portable digest", "native digest"], texts))
    if options.json:
        print(json.dumps({"machine": machine(), "processor": numerics.description() | {"asked": "both"}, "rows": rows}))


if __name__ == "__main__":
    main()
