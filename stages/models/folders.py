"""Loads models, adapters and tokenizers from local folders without network or remote code, and saves them byte-deterministically."""

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from engine.core.errors import UserError
from stages.models.adapters import for_untouched_base
from stages.models.attention import Attention, choose, say
from stages.models.positions import positions
from stages.models.quantisation import quantise
from stages.process import numerics
from stages.process.quiet import keep_quiet

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

    from stages.models.quantisation import Quantisation
    from stages.tokens.encoder import Encoder

ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    # Spinning threads take cores from other processes: with two processes on two cores
    # a small network ran at 0.75 steps/s spinning, and at 5.3 steps/s with passive waits.
    "OMP_WAIT_POLICY": "PASSIVE",
    # cuBLAS is deterministic only with a workspace of fixed size: https://docs.nvidia.com/cuda/cublas/#results-reproducibility
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
}
"""Environment variables of a process that computes with models."""

ENVIRONMENT_WITHOUT_GPU = {
    # deepspeed, which accelerate imports if installed, would print its detected accelerator to stdout, which is for data.
    "DS_ACCELERATOR": "cpu",
    # bitsandbytes, which peft imports, would compile its optimizers if a C++ compiler is installed: different bits on
    # different machines, and seconds of imports in every process.
    "TORCHDYNAMO_DISABLE": "1",
}
"""More of them, for a process that sees no GPU."""

# Versions change with every release, not with the model.
_UNSTABLE_KEYS = ("transformers_version", "_name_or_path")
_UNSTABLE_ADAPTER_KEYS = ("peft_version",)

_TOKENIZER_FILES = (
    "added_tokens.json",
    "chat_template.jinja",
    "merges.txt",
    "sentencepiece.bpe.model",
    "special_tokens_map.json",
    "spiece.model",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "vocab.json",
    "vocab.txt",
)

_OTHER_FILES = ("adapter_config.json", "config.json", "generation_config.json", "model.safetensors.index.json", "new_tokens.json")
_OTHER_SUFFIXES = (".bin", ".gguf", ".h5", ".md", ".msgpack", ".onnx", ".pt", ".pth", ".py", ".safetensors")
"""Files in a model's folder that do not belong to its tokenizer."""


def prepare_process(threads: int | None = None, parts: int | None = None) -> None:
    """Make this process offline, quiet and deterministic, with THREADS CPU threads (default: all cores).

    Under portable numerics THREADS is the number of cores that it may use, and work is divided into PARTS (default: by model size, see
    `load_model`). Must be called before transformers is imported, which reads the environment.
    """
    os.environ.update({key: os.environ.get(key, value) for key, value in ENVIRONMENT.items()})
    keep_quiet()
    import torch
    from transformers.utils import logging

    if not torch.cuda.is_available():
        os.environ.update({key: os.environ.get(key, value) for key, value in ENVIRONMENT_WITHOUT_GPU.items()})
        numerics.confine(threads)
        torch.set_num_threads(parts or numerics.divide(threads))
    else:
        numerics.say_gpu(f"{torch.cuda.device_count()} x {torch.cuda.get_device_name()}")
        torch.set_num_threads(threads or numerics.cores())
    # Denormals: libraries compiled with -ffast-math flush them to zero once loaded.
    torch.set_flush_denormal(False)
    torch.use_deterministic_algorithms(True)
    # Filling fresh memory costs time and only helps code that reads it before writing.
    torch.utils.deterministic.fill_uninitialized_memory = False
    logging.set_verbosity_error()
    logging.disable_progress_bar()


Dtype = Literal["float32", "bfloat16", "float16"]


def load_model(
    folder: Path, attention: Attention = "auto", dtype: Dtype = "float32", quantisation: "Quantisation | None" = None
) -> "PreTrainedModel":
    """The model in FOLDER, for inference; raises UserError if it is missing, broken, incomplete or needs remote code.

    Its weights have DTYPE, and its linear layers are quantised by QUANTISATION, if given; `model.config._attn_implementation` is the chosen
    attention.
    """
    import torch
    from safetensors import SafetensorError
    from transformers import AutoConfig

    _refuse_no_model(folder)
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        auto = auto_class(config)
        chosen = choose(attention, model_class(config), dtype)
        say(chosen)
        model, loading = auto.from_pretrained(
            folder,
            config=config,
            attn_implementation=chosen.implementation,
            dtype=getattr(torch, dtype),
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            output_loading_info=True,
        )
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise UserError(f"cannot load the model in {folder}: {_first_line(error)}", hint=_MODEL_HINT) from error
    # transformers initializes missing weights at random and continues.
    if missing := sorted(loading["missing_keys"]):
        raise UserError(f"the model in {folder} lacks {len(missing)} weights, such as {missing[0]}", hint=_MODEL_HINT)
    if numerics.is_portable() and not torch.cuda.is_available():
        torch.set_num_threads(numerics.divide(None, count_parameters(model)))
    if quantisation is not None:
        # On a GPU bitsandbytes' kernels pack the weights.
        quantise(model.to("cuda" if torch.cuda.is_available() else "cpu"), quantisation)
    model.eval()
    return model


def auto_class(config: "PretrainedConfig") -> Any:
    """transformers' auto class: causal or encoder-decoder."""
    from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

    return AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM


def model_class(config: "PretrainedConfig") -> Any:
    """The class of a model with CONFIG; raises ValueError if transformers has no such language model."""
    mapping = auto_class(config)._model_mapping
    if type(config) not in mapping:
        raise ValueError(f"transformers has no language model of type {config.model_type}")
    return mapping[type(config)]


_MODEL_HINT = "the folder must be written by `save_pretrained`: config.json, matching safetensors weights, tokenizer.json"


def _refuse_no_model(folder: Path) -> None:
    if not folder.is_dir():
        raise UserError(f"model folder not found: {folder}", hint=_MODEL_HINT)
    if not (folder / "config.json").is_file():
        raise UserError(f"{folder} contains no model: config.json is missing", hint=_MODEL_HINT)


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def load_adapter(model: Any, folder: Path, name: str = "default") -> Any:
    """MODEL with the adapter in FOLDER added under NAME, for inference; raises UserError if it does not fit the model."""
    from peft import PeftModel
    from safetensors import SafetensorError

    read_adapter_config(folder)
    require_adapter_weights(folder)
    try:
        if isinstance(model, PeftModel):
            adapted = model
            adapted.load_adapter(folder, name, local_files_only=True)
        else:
            adapted = PeftModel.from_pretrained(model, folder, adapter_name=name, local_files_only=True)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        raise UserError(f"cannot load the adapter in {folder}: {_first_line(error)}", hint=_ADAPTER_HINT) from error
    adapted.eval()
    return adapted


ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


def read_adapter_config(folder: Path) -> dict[str, Any]:
    """The configuration of the adapter in FOLDER; raises UserError if there is none, or if it is not a JSON object."""
    path = folder / ADAPTER_CONFIG
    try:
        found = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise UserError(f"{folder} contains no adapter: {ADAPTER_CONFIG} is missing", hint=_ADAPTER_HINT) from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is not valid JSON: {_first_line(error)}", hint=_ADAPTER_HINT) from error
    if not isinstance(found, dict):
        raise UserError(f"{path} must contain a JSON object", hint=_ADAPTER_HINT)
    return found


def require_adapter_weights(folder: Path) -> None:
    """Raise UserError if the adapter in FOLDER has no safetensors weights; weights in a pickle are none."""
    if (folder / ADAPTER_WEIGHTS).is_file():
        return
    what = f"{folder} contains no adapter weights: {ADAPTER_WEIGHTS} is missing"
    if not (folder / "adapter_model.bin").is_file():
        raise UserError(what, hint=_ADAPTER_HINT)
    convert = (
        "import torch; from safetensors.torch import save_file; "
        "save_file({k: v.contiguous() for k, v in torch.load('adapter_model.bin', weights_only=True).items()}, "
        f"'{ADAPTER_WEIGHTS}', {{'format': 'pt'}})"
    )
    hint = f'adapter_model.bin is a pickle, which may run code and is never loaded; convert it there: python -c "{convert}"'
    raise UserError(what, hint=hint)


def load_updates(model: Any, folder: Path) -> None:
    """Copy the weights of the adapter in FOLDER into the fresh adapter of a peft MODEL; raises UserError if names or shapes differ.

    peft's loader does not support training prompts and prefixes further.
    """
    from peft import get_peft_model_state_dict, set_peft_model_state_dict
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        weights = load_file(folder / "adapter_model.safetensors")
    except (OSError, SafetensorError) as error:
        raise UserError(f"cannot load the adapter in {folder}: {_first_line(error)}", hint=_ADAPTER_HINT) from error
    own = {name: weight.shape for name, weight in get_peft_model_state_dict(model, save_embedding_layers=False).items()}
    if misfit := next((name for name in sorted({*own, *weights}) if name not in weights or own.get(name) != weights[name].shape), None):
        hint = "it belongs to another model or method; training.method must match the adapter's method and target modules"
        raise UserError(f"cannot continue the adapter in {folder}: {misfit}", hint=hint)
    set_peft_model_state_dict(model, weights)


_ADAPTER_HINT = "adapter_config.json and adapter_model.safetensors of this model are needed"


def save_model(model: "PreTrainedModel", folder: Path, max_shard_size: str | None = None) -> None:
    """Write MODEL as a `from_pretrained` folder, safetensors only, whose bytes depend on the model only.

    Weights files have at most MAX_SHARD_SIZE, such as `5GB`, except for a single larger matrix.
    """
    from transformers.utils import logging

    logging.disable_progress_bar()
    model.save_pretrained(folder, **({"max_shard_size": max_shard_size} if max_shard_size else {}))
    for name in ("config.json", "generation_config.json"):
        if (folder / name).exists():
            values = json.loads((folder / name).read_text("utf-8"))
            write_json(folder / name, {key: value for key, value in values.items() if key not in _UNSTABLE_KEYS})


def save_adapter(model: Any, folder: Path) -> None:
    """Write the adapter of a peft MODEL as `adapter_config.json` and `adapter_model.safetensors`, without tokenizer files.

    peft's `save_pretrained` would also write a README, the base model's path, its version, and sets in hash order.
    """
    from peft import get_peft_model_state_dict
    from safetensors.torch import save_file

    weights, config = for_untouched_base(model, get_peft_model_state_dict(model, save_embedding_layers=False), _adapter_config(model))
    # Copies: tied weights share memory, which safetensors rejects.
    tensors = {name: weight.detach().cpu().clone().contiguous() for name, weight in sorted(weights.items())}
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    write_json(folder / "adapter_config.json", config)


def _adapter_config(model: Any) -> dict[str, Any]:
    values = {key: sorted(value) if isinstance(value, set) else value for key, value in model.active_peft_config.to_dict().items()}
    values |= {"base_model_name_or_path": None, "inference_mode": True}
    if "init_lora_weights" in values:
        # peft would repeat a special initialization when it loads the adapter, and modify the frozen weights.
        values["init_lora_weights"] = True
    return {key: value for key, value in values.items() if key not in _UNSTABLE_ADAPTER_KEYS}


def write_json(path: Path, value: object) -> None:
    """Write VALUE as indented JSON with sorted keys."""
    path.write_text(json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")


def copy_tokenizer(source: Path, folder: Path) -> None:
    """Copy the files of the tokenizer in SOURCE into FOLDER."""
    for name, path in _tokenizer_files(source).items():
        shutil.copyfile(path, folder / name)


def _tokenizer_files(folder: Path) -> dict[str, Path]:
    """Files of the tokenizer in FOLDER by name; for a Python tokenizer all candidate files, since file names differ by class."""
    known = {name: folder / name for name in _TOKENIZER_FILES if (folder / name).is_file()}
    if "tokenizer.json" in known or not folder.is_dir():
        return known
    others = {path.name: path for path in sorted(folder.iterdir()) if path.is_file() and not path.name.startswith(".")}
    return {name: path for name, path in others.items() if name not in _OTHER_FILES and path.suffix not in _OTHER_SUFFIXES}


def longest_sequence(config: "PretrainedConfig", virtual_tokens: int = 0) -> int | None:
    """Maximum row length in tokens, less VIRTUAL_TOKENS that an adapter prepends; None if the model has no limit."""
    found = positions(config.to_dict())
    return found and found[1] - virtual_tokens


def count_parameters(model: Any, trainable: bool = False) -> int:
    """Number of weights of MODEL, tied ones counted once; TRAINABLE: only those with gradients."""
    return sum(weight.numel() for weight in model.parameters() if weight.requires_grad or not trainable)


@dataclass(frozen=True)
class TextTokenizer:
    """A tokenizer for single texts."""

    encoder: "Encoder"

    @property
    def eos(self) -> int:
        """Id of the end-of-sequence token."""
        return self.encoder.eos_id

    def encode(self, text: str) -> list[int]:
        """Token ids of TEXT, without adding special tokens."""
        return self.encoder.encode([text])[0]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of IDS without a final end-of-sequence token; other special tokens are kept, so that they count as errors."""
        return self.encoder.decode([ids[:-1] if ids and ids[-1] == self.eos else ids])[0]


def load_tokenizer(folder: Path) -> TextTokenizer:
    """The tokenizer in FOLDER; raises UserError if there is none, or if it has no end-of-sequence token."""
    from stages.tokens.encoder import FAST, Encoder

    files = _tokenizer_files(folder)
    if FAST not in files and "tokenizer_class" not in json_object(folder / "tokenizer_config.json"):
        raise UserError(f"{folder} contains no tokenizer: {FAST} is missing", hint=_TOKENIZER_HINT)
    return TextTokenizer(Encoder.open(files))


def json_object(path: Path) -> dict[str, Any]:
    """The object in the JSON file PATH; empty if there is no such file, or no object in it."""
    try:
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


_TOKENIZER_HINT = "save it with transformers: AutoTokenizer.from_pretrained(...).save_pretrained(...)"
