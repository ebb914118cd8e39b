"""The command that serves adapters with vLLM: https://docs.vllm.ai/en/latest/features/lora.html"""

import importlib.util
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.core.errors import UserError
from stages.models.folders import ADAPTER_CONFIG, json_object
from stages.tokens.encoder import TEMPLATE

if TYPE_CHECKING:
    from engine.rows.answers import Model

RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""Values that `--max-lora-rank` takes (besides 1)."""


def is_installed() -> bool:
    """Whether this Python has vLLM."""
    return importlib.util.find_spec("vllm") is not None


def command(models: "Sequence[Model]", host: str, port: int) -> list[str]:
    """The command that serves MODELS, one base and LoRA adapters on it; raises UserError for what vLLM cannot serve together."""
    folders = {model.name: {role: Path(path) for role, path in model.request["inputs"].items()} for model in models}
    bases = {inputs["model"] for inputs in folders.values()}
    if len(bases) > 1:
        what = f"vLLM serves one base and its adapters, and these have {len(bases)}: {', '.join(sorted(base.name for base in bases))}"
        raise UserError(what, hint="start a server for each: engine serve EXPERIMENT … --engine vllm")
    (base,) = bases
    adapters = {name: inputs["adapter"] for name, inputs in folders.items() if "adapter" in inputs}
    configs = {name: json_object(folder / ADAPTER_CONFIG) for name, folder in adapters.items()}
    for name, config in configs.items():
        _refuse(name, config, folders[name])
    found = [sys.executable, "-m", "vllm.entrypoints.cli.main", "serve", str(base), "--host", host, "--port", str(port)]
    whole = [name for name in folders if name not in adapters]
    if whole:
        found += ["--served-model-name", *whole]
    if adapters:
        rank = max(int(config.get("r") or 0) for config in configs.values())
        found += ["--enable-lora", "--max-loras", str(len(adapters))]
        found += ["--max-lora-rank", str(next((size for size in RANKS if size >= rank), rank))]
        found += ["--lora-modules", *(f"{name}={folder}" for name, folder in adapters.items())]
    return found + _asking([inputs.get("adapter", base) for inputs in folders.values()])


def differences(models: "Sequence[Model]") -> Iterator[str]:
    """What differs from the experiments' evaluation when vLLM serves MODELS."""
    yield "vLLM computes in the dtype of the base's weights and in batches of its own: answers may differ from those of predict"
    folders = [Path(model.request["inputs"].get("adapter", model.request["inputs"]["model"])) for model in models]
    for name in (TEMPLATE, "generation_config.json"):
        if len({_content(folder / name) for folder in folders}) > 1:
            yield f"these models differ in {name}, and vLLM takes that of {models[0].name} for all; serve them separately"
    for model in models:
        if any(model.systems.values()):
            yield f"{model.name} was trained with a system prompt, which clients must send themselves"


def _asking(folders: Sequence[Path]) -> list[str]:
    """The options by which prompts are rendered and answers end as in training: of the first of FOLDERS."""
    first = folders[0]
    template = ["--chat-template", str(first / TEMPLATE)] if (first / TEMPLATE).is_file() else []
    ends = ["--generation-config", str(first)] if (first / "generation_config.json").is_file() else []
    return [*template, *ends]


def _content(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None


def _refuse(name: str, config: Mapping[str, Any], inputs: Mapping[str, Path]) -> None:
    """Raise UserError if vLLM cannot load the adapter with CONFIG."""
    hint = "engine serve without --engine vllm serves it"
    if config.get("peft_type") != "LORA":
        raise UserError(f"vLLM serves LoRA adapters, and {name} is of type {config.get('peft_type')}", hint=hint)
    if config.get("use_dora"):
        raise UserError(f"vLLM serves no DoRA adapters, and {name} is one", hint=hint)
    if "vocabulary" in inputs or config.get("trainable_token_indices") or config.get("modules_to_save"):
        raise UserError(f"{name} has trained tokens or modules besides its LoRA weights, which vLLM does not load", hint=hint)
