"""Models, adapters and tokenizers in folders of this machine: loaded without network or remote code, saved byte-deterministically."""

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

_ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    # Threads that wait by spinning take the core from whoever else works on this machine: with two processes on two cores
    # a small network ran at 0.75 steps/s spinning, and at 5.3 steps/s waiting passively.
    "OMP_WAIT_POLICY": "PASSIVE",
    # cuBLAS is deterministic only with a workspace of fixed size: https://docs.nvidia.com/cuda/cublas/#results-reproducibility
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
}

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
"""What lies beside a tokenizer in the folder of a model, and is none of its files."""


def prepare_process(threads: int | None = None, parts: int | None = None) -> None:
    """Make this process offline, quiet and deterministic, with THREADS CPU threads (none given: all cores).

    Under portable numerics these are the cores that it may use, and work is cut into PARTS (none given: as the model's size says, see
    `load_model`). To be called before transformers is imported, which reads the environment then.
    """
    os.environ.update({key: os.environ.get(key, value) for key, value in _ENVIRONMENT.items()})
    keep_quiet()
    import torch
    from transformers.utils import logging

    if not torch.cuda.is_available():
        # deepspeed, which accelerate imports where it is installed, would write its guess to stdout, which is for data.
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
        # bitsandbytes, which peft imports, would have its optimizers compiled where a C++ compiler is installed, and not elsewhere:
        # other bits on another machine, and seconds of imports in every process.
        os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")
        numerics.confine(threads)
        torch.set_num_threads(parts or numerics.divide(threads))
    else:
        numerics.say_gpu(f"{torch.cuda.device_count()} x {torch.cuda.get_device_name()}")
        torch.set_num_threads(threads or numerics.cores())
    # Numbers too small for a full mantissa: libraries that were compiled for speed would round them to zero once they are loaded.
    torch.set_flush_denormal(False)
    torch.use_deterministic_algorithms(True)
    # Filling fresh memory costs time and only helps code that reads it before it writes.
    torch.utils.deterministic.fill_uninitialized_memory = False
    logging.set_verbosity_error()
    logging.disable_progress_bar()


Dtype = Literal["float32", "bfloat16", "float16"]


def load_model(
    folder: Path, attention: Attention = "auto", dtype: Dtype = "float32", quantisation: "Quantisation | None" = None
) -> "PreTrainedModel":
    """The model in FOLDER, for inference; raises UserError where it is missing, broken, incomplete or needs remote code.

    Its weights are of DTYPE, and its linear layers kept in few bits where QUANTISATION says so; `model.config._attn_implementation` names
    the attention that was chosen.
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
        raise UserError(f"the model in {folder} cannot be loaded: {_first_line(error)}", hint=_MODEL_HINT) from error
    # transformers fills what is missing with random numbers and goes on.
    if missing := sorted(loading["missing_keys"]):
        raise UserError(f"the model in {folder} lacks {len(missing)} weights, such as {missing[0]}", hint=_MODEL_HINT)
    if numerics.is_portable() and not torch.cuda.is_available():
        torch.set_num_threads(numerics.divide(None, count_parameters(model)))
    if quantisation is not None:
        # Where there is a GPU, its own kernels pack the weights.
        quantise(model.to("cuda" if torch.cuda.is_available() else "cpu"), quantisation)
    model.eval()
    return model


def auto_class(config: "PretrainedConfig") -> Any:
    """transformers' automatic class for a model that continues a text, or that answers one."""
    from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

    return AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM


def model_class(config: "PretrainedConfig") -> Any:
    """The class of a model of CONFIG; raises ValueError where transformers has none of this sort."""
    mapping = auto_class(config)._model_mapping
    if type(config) not in mapping:
        raise ValueError(f"transformers has no language model of type {config.model_type}")
    return mapping[type(config)]


_MODEL_HINT = "a folder as `save_pretrained` writes it is needed: config.json, safetensors weights that fit it, tokenizer.json"


def _refuse_no_model(folder: Path) -> None:
    if not folder.is_dir():
        raise UserError(f"{folder} is no folder of a model", hint=_MODEL_HINT)
    if not (folder / "config.json").is_file():
        raise UserError(f"{folder} holds no model: it has no config.json", hint=_MODEL_HINT)


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def load_adapter(model: Any, folder: Path, name: str = "default") -> Any:
    """MODEL with the adapter in FOLDER on it, beside others that it has, for inference; raises UserError where the two do not fit."""
    from peft import PeftModel
    from safetensors import SafetensorError

    if not (folder / "adapter_config.json").is_file():
        raise UserError(f"{folder} holds no adapter: it has no adapter_config.json", hint=_ADAPTER_HINT)
    try:
        if isinstance(model, PeftModel):
            adapted = model
            adapted.load_adapter(folder, name, local_files_only=True)
        else:
            adapted = PeftModel.from_pretrained(model, folder, adapter_name=name, local_files_only=True)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        raise UserError(f"the adapter in {folder} cannot be loaded: {_first_line(error)}", hint=_ADAPTER_HINT) from error
    adapted.eval()
    return adapted


def load_updates(model: Any, folder: Path) -> None:
    """Give the fresh adapter of a peft MODEL the weights of the one in FOLDER; raises UserError where they are not of one form.

    peft's own loader refuses to train prompts and prefixes further.
    """
    from peft import get_peft_model_state_dict, set_peft_model_state_dict
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        weights = load_file(folder / "adapter_model.safetensors")
    except (OSError, SafetensorError) as error:
        raise UserError(f"the adapter in {folder} cannot be loaded: {_first_line(error)}", hint=_ADAPTER_HINT) from error
    own = {name: weight.shape for name, weight in get_peft_model_state_dict(model, save_embedding_layers=False).items()}
    if misfit := next((name for name in sorted({*own, *weights}) if name not in weights or own.get(name) != weights[name].shape), None):
        hint = "it was made for another model or by another method; method and target modules must be those of the adapter"
        raise UserError(f"the adapter in {folder} does not fit the one that is to be trained further: {misfit}", hint=hint)
    set_peft_model_state_dict(model, weights)


_ADAPTER_HINT = "adapter_config.json and adapter_model.safetensors are needed, made for this very model"


def save_model(model: "PreTrainedModel", folder: Path, max_shard_size: str | None = None) -> None:
    """Write MODEL as a `from_pretrained` folder, safetensors only, whose bytes depend on the model alone.

    Files of weights are at most MAX_SHARD_SIZE large, such as `5GB`, save for one that holds a single larger matrix.
    """
    from transformers.utils import logging

    logging.disable_progress_bar()
    model.save_pretrained(folder, **({"max_shard_size": max_shard_size} if max_shard_size else {}))
    for name in ("config.json", "generation_config.json"):
        if (folder / name).exists():
            values = json.loads((folder / name).read_text("utf-8"))
            write_json(folder / name, {key: value for key, value in values.items() if key not in _UNSTABLE_KEYS})


def save_adapter(model: Any, folder: Path) -> None:
    """Write the adapter of a peft MODEL: `adapter_config.json` and `adapter_model.safetensors`; its tokenizer is another's matter.

    peft's own `save_pretrained` would also write a README, the base model's path, its version, and sets in the order of Python's hash seed.
    """
    from peft import get_peft_model_state_dict
    from safetensors.torch import save_file

    weights, config = for_untouched_base(model, get_peft_model_state_dict(model, save_embedding_layers=False), _adapter_config(model))
    # Copies: tied weights lie in the same memory, which safetensors refuses.
    tensors = {name: weight.detach().cpu().clone().contiguous() for name, weight in sorted(weights.items())}
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    write_json(folder / "adapter_config.json", config)


def _adapter_config(model: Any) -> dict[str, Any]:
    values = {key: sorted(value) if isinstance(value, set) else value for key, value in model.active_peft_config.to_dict().items()}
    values |= {"base_model_name_or_path": None, "inference_mode": True}
    if "init_lora_weights" in values:
        # How the updates began is past; peft would begin so again when it loads them, and change the frozen weights.
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
    """The files of the tokenizer in FOLDER by name; where it is written in Python, all that can be its own: each class names others."""
    known = {name: folder / name for name in _TOKENIZER_FILES if (folder / name).is_file()}
    if "tokenizer.json" in known or not folder.is_dir():
        return known
    others = {path.name: path for path in sorted(folder.iterdir()) if path.is_file() and not path.name.startswith(".")}
    return {name: path for name, path in others.items() if name not in _OTHER_FILES and path.suffix not in _OTHER_SUFFIXES}


def longest_sequence(config: "PretrainedConfig", virtual_tokens: int = 0) -> int | None:
    """Tokens that a model of this configuration has positions for, less those that an adapter puts before a row; None: no bound."""
    found = positions(config.to_dict())
    return found and found[1] - virtual_tokens


def count_parameters(model: Any, trainable: bool = False) -> int:
    """Number of weights of MODEL, tied ones counted once; TRAINABLE: those that learn."""
    return sum(weight.numel() for weight in model.parameters() if weight.requires_grad or not trainable)


@dataclass(frozen=True)
class TextTokenizer:
    """A tokenizer that questions and answers go through one at a time."""

    encoder: "Encoder"

    @property
    def eos(self) -> int:
        """The id of the token that ends a text."""
        return self.encoder.eos_id

    def encode(self, text: str) -> list[int]:
        """Token ids of TEXT, no special ones added."""
        return self.encoder.encode([text])[0]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of IDS without the end-of-sequence token that ends them; any other special token shows, since it is no right answer."""
        return self.encoder.decode([ids[:-1] if ids and ids[-1] == self.eos else ids])[0]


def load_tokenizer(folder: Path) -> TextTokenizer:
    """The tokenizer in FOLDER; raises UserError where it has none, or names no end-of-sequence token."""
    from stages.tokens.encoder import FAST, Encoder

    files = _tokenizer_files(folder)
    if FAST not in files and "tokenizer_class" not in _json(folder / "tokenizer_config.json"):
        raise UserError(f"{folder} holds no tokenizer: it has no {FAST}", hint=_TOKENIZER_HINT)
    return TextTokenizer(Encoder.open(files))


def _json(path: Path) -> dict[str, Any]:
    """The object in PATH; an empty one where there is none."""
    try:
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


_TOKENIZER_HINT = "save it with transformers: AutoTokenizer.from_pretrained(...).save_pretrained(...)"
