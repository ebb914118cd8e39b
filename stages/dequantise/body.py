"""Body of dequantise: writes weights, configuration, tokenizer and chat template of one GGUF file as a `from_pretrained` folder.

transformers reads the weights. It pre-tokenizes for every byte-pair tokenizer as GPT-2 does, whatever `tokenizer.ggml.pre` says, so the
rule is set here (stages.tokens.pre_tokenizers). Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

import struct
from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.core.errors import Location, UserError
from stages.dequantise import Parameters
from stages.models.folders import auto_class, count_parameters, prepare_process, save_model, write_json
from stages.process.job import Job, Metrics
from stages.tokens.pre_tokenizers import set_rules

if TYPE_CHECKING:
    from transformers import PreTrainedModel

MAGIC = b"GGUF"
_UNQUANTISED = ("quantization_config", "_pre_quantization_dtype")
"""Configuration attributes that transformers sets on a dequantised model, and that do not apply to the written weights."""


def run(parameters: Parameters, job: Job) -> Metrics:
    """Write the folder; raises UserError if the input is not a GGUF file, or if its model or tokenizer cannot be converted exactly."""
    # Weights are unpacked sequentially, so no sum depends on the number of threads.
    prepare_process(threads=1, parts=1)
    file = job.inputs["gguf"]
    told = metadata(file)
    model = _model(file, parameters.dtype)
    save_model(model, job.output)
    words = _write_tokenizer(file, told, job.output)
    return {
        "parameters": count_parameters(model),
        "vocab_size": words,
        "architecture": str(told.get("general.architecture")),
        "chat_template": "tokenizer.chat_template" in told,
    }


def metadata(file: Path) -> dict[str, Any]:
    """Header values of a GGUF file, except the lists of tokens, token types and merges; raises UserError if it is not a GGUF file."""
    from gguf import GGUFReader

    with file.open("rb") as opened:
        begin = opened.read(len(MAGIC))
    if begin != MAGIC:
        raise UserError(
            "this is not a GGUF file: it does not begin with the bytes GGUF", Location(str(file)), "give a file of llama.cpp's format"
        )
    try:
        fields = GGUFReader(file).fields
        return {name: field.contents() for name, field in fields.items() if len(field.data) <= 64 or not name.startswith("tokenizer.ggml.")}
    except (ValueError, IndexError, KeyError, struct.error, UnicodeDecodeError) as error:
        raise UserError(f"this GGUF file is damaged: {error}", Location(str(file)), "download it again") from error


def _model(file: Path, dtype: str) -> "PreTrainedModel":
    """The model of FILE with weights of DTYPE, without traces of quantisation."""
    import torch
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(file.parent, gguf_file=file.name, local_files_only=True)
        # Its progress bar duplicates the step's.
        with redirect_stderr(StringIO()):
            model: PreTrainedModel = auto_class(config).from_pretrained(
                file.parent, gguf_file=file.name, dtype=getattr(torch, dtype), local_files_only=True
            )
    except (ValueError, KeyError, OSError, RuntimeError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(f"transformers cannot read this GGUF file: {first}", Location(str(file)), "take the model's safetensors") from error
    # save_pretrained rejects models marked as quantised.
    model.hf_quantizer = None
    model.is_quantized = False
    for name in _UNQUANTISED:
        if hasattr(model.config, name):
            delattr(model.config, name)
    model.config.dtype = getattr(torch, dtype)
    return model.eval()


def _write_tokenizer(file: Path, told: dict[str, Any], folder: Path) -> int:
    """Write tokenizer.json and tokenizer_config.json; returns the number of tokens."""
    from transformers import AutoTokenizer

    found = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name, local_files_only=True)
    tokenizer = found.backend_tokenizer
    if told.get("tokenizer.ggml.model") == "gpt2":
        set_rules(tokenizer, str(told.get("tokenizer.ggml.pre", "")), file)
    tokenizer.save(str(folder / "tokenizer.json"), pretty=True)
    architecture = told.get("general.architecture")
    special = {name: value for name in ("bos_token", "eos_token", "unk_token", "pad_token") if (value := getattr(found, name))}
    template = told.get("tokenizer.chat_template")
    description = {
        **special,
        **({"chat_template": template} if template else {}),
        "clean_up_tokenization_spaces": False,
        "model_max_length": told.get(f"{architecture}.context_length"),
        "tokenizer_class": "PreTrainedTokenizerFast",
    }
    write_json(folder / "tokenizer_config.json", {name: value for name, value in description.items() if value is not None})
    return int(tokenizer.get_vocab_size())
