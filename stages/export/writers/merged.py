"""Writes merged weights as a `from_pretrained` folder."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from engine.core.errors import UserError
from stages.export.material import Material
from stages.export.runtimes.transformers import Transformers
from stages.models.folders import load_model, save_model
from stages.models.layers import linear_layers


@contextmanager
def exported(material: Material, dtype: Any, max_shard_size: str) -> Iterator[Transformers]:
    """Write the folder with weights of DTYPE in files of MAX_SHARD_SIZE, and load it as any program does."""
    if dtype == "nf4":
        save_model(_in_four_bits(material.weights), material.output, max_shard_size)
    else:
        save_model(load_model(material.weights, dtype=dtype), material.output, max_shard_size)
    material.serving.write(material.output)
    yield Transformers(material.output, _loaded(material.output, dtype), material.weights)


def _loaded(folder: Path, dtype: Any) -> Any:
    if dtype != "nf4":
        return load_model(folder, dtype=dtype)
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, local_files_only=True, use_safetensors=True).eval()


def _in_four_bits(folder: Path) -> Any:
    """The model in FOLDER, quantised as transformers does when it loads; raises UserError if transformers would leave layers out."""
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    settings = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=torch.bfloat16
    )
    model = AutoModelForCausalLM.from_pretrained(
        folder, quantization_config=settings, dtype=torch.bfloat16, local_files_only=True, use_safetensors=True
    ).eval()
    head = model.get_output_embeddings()
    whole = [name for name, layer in linear_layers(model).items() if layer is not head and layer.weight.is_floating_point()]
    if whole:
        what = f"transformers leaves {len(whole)} matrices of {type(model).__name__} in full precision, such as {whole[0]}"
        raise UserError(f"{what}, so this is no export in 4 bits", hint='use dtype = "bfloat16", or { kind = "gguf", type = "q4_k_m" }')
    return model
