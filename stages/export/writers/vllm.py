"""Writes what vLLM serves, and the command line."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from stages.export.material import Material
from stages.export.runtimes.transformers import Transformers
from stages.models.folders import ADAPTER_CONFIG, ADAPTER_WEIGHTS, load_adapter, load_model

BASE, ADAPTER, COMMAND = "base", "adapter", "serve.sh"
_WEIGHTS = ("config.json", "model.safetensors.index.json")


@contextmanager
def exported(material: Material, dtype: Any, max_lora_rank: int) -> Iterator[Transformers]:
    """Write `base`, with an adapter also `adapter`, and `serve.sh`; load both with transformers and peft, which read the same files.

    DTYPE is the type of the weights in memory, MAX_LORA_RANK the limit that vLLM gets.
    """
    base, adapter = material.output / BASE, material.output / ADAPTER
    base.mkdir()
    for path in sorted(material.weights.iterdir()):
        if path.suffix == ".safetensors" or path.name in _WEIGHTS:
            shutil.copyfile(path, base / path.name)
    # vLLM takes tokenizer, chat template and end tokens from the base's folder, so those of the training are there.
    material.serving.write(base)
    model = load_model(base, dtype=dtype)
    if material.adapter:
        adapter.mkdir()
        for name in (ADAPTER_CONFIG, ADAPTER_WEIGHTS):
            shutil.copyfile(material.adapter / name, adapter / name)
        model = load_adapter(model, adapter)
    _write_command(material.output / COMMAND, dtype, max_lora_rank if material.adapter else None)
    yield Transformers(base, model, material.weights)


def _write_command(path: Path, dtype: str, max_lora_rank: int | None) -> None:
    options = [f"--dtype {dtype}", "--served-model-name base" if max_lora_rank else "--served-model-name model"]
    if max_lora_rank:
        options += ["--enable-lora", f"--max-lora-rank {max_lora_rank}", f'--lora-modules model="$here/{ADAPTER}"']
    lines = [
        "#!/bin/sh",
        "# Serves the exported model as `model`; more options may follow.",
        'here=$(cd "$(dirname "$0")" && pwd)',
        " \\\n  ".join([f'exec vllm serve "$here/{BASE}"', *options, '"$@"']),
    ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    path.chmod(0o755)
