"""Writes an adapter as a GGUF LoRA, and its base as a GGUF file."""

import json
import math
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from stages.export.gguf.vocabulary import vocabulary_of
from stages.export.gguf.writing import write_adapter, write_model
from stages.export.material import Material
from stages.export.modelfile import write_modelfile
from stages.export.runtimes.llama_cpp import LlamaCpp, llama_cpp
from stages.models.folders import ADAPTER_CONFIG, ADAPTER_WEIGHTS, read_adapter_config

BASE, ADAPTER = "base.gguf", "adapter.gguf"


@contextmanager
def exported(material: Material, kind: str) -> Iterator[LlamaCpp]:
    """Write `base.gguf` with weights of the type KIND, `adapter.gguf` and `Modelfile`, and serve both files together."""
    assert material.adapter
    vocabulary = vocabulary_of(material.encoder, material.ends, material.taught.template, material.adds_bos)
    write_model(material.weights, material.output / BASE, kind, vocabulary)
    with TemporaryDirectory(dir=material.output) as folder:
        _scaled(material.adapter, Path(folder))
        write_adapter(Path(folder), material.weights, material.output / ADAPTER)
    write_modelfile(material, BASE, ADAPTER)
    with llama_cpp(material.output / BASE, material.output / ADAPTER, material.weights, material.context, material.threads) as server:
        yield server


def _scaled(adapter: Path, folder: Path) -> None:
    """Write ADAPTER into FOLDER with the scaling of its updates inside the second matrices.

    llama.cpp scales by alpha / rank, with one alpha for all layers, or not at all if alpha is 0; peft also by the rank's square root, and
    with other ranks and alphas for some layers.
    """
    from safetensors.torch import load_file, save_file

    config = read_adapter_config(adapter)
    weights = load_file(adapter / ADAPTER_WEIGHTS)
    for name in weights:
        if ".lora_B" in name:
            weights[name] = (weights[name].float() * _scaling(config, name, weights[name].shape[-1])).contiguous()
    save_file(weights, folder / ADAPTER_WEIGHTS, metadata={"format": "pt"})
    (folder / ADAPTER_CONFIG).write_text(json.dumps({**config, "lora_alpha": 0}), encoding="utf-8")
    shutil.copymode(adapter / ADAPTER_CONFIG, folder / ADAPTER_CONFIG)


def _scaling(config: dict[str, Any], name: str, rank: int) -> float:
    """peft's factor of the update NAME with RANK."""
    layer = name.removeprefix("base_model.model.").partition(".lora_B")[0]
    patterns = config.get("alpha_pattern") or {}
    # peft matches a pattern with the end of a layer's name.
    alpha = next((one for key, one in patterns.items() if layer == key or layer.endswith(f".{key}")), config["lora_alpha"])
    return float(alpha) / (math.sqrt(rank) if config.get("use_rslora") else rank)
