"""The evaluated models: a model alone, with one adapter, or with several in turn; the base is loaded once."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from stages.models.folders import load_adapter, load_model, read_adapter_config
from stages.process.job import Job


def load(folder: Path) -> Any:
    """The model in FOLDER, on the first device if there is one."""
    import torch

    model = load_model(folder)
    return model.to("cuda") if torch.cuda.is_available() else model


def entrants(model: Any, job: Job) -> Iterator[tuple[str, Any]]:
    """Name and model of each entrant; the name is empty for the step's only model.

    Each model is valid until the next one is yielded: they share the weights of MODEL.
    """
    if several := job.group("adapter"):
        for name, folder in sorted(several.items()):
            yield name, (adapted := put_on(model, folder))
            take_off(adapted)
    else:
        yield "", load_adapter(model, job.inputs["adapter"]) if "adapter" in job.inputs else model


def adapter_folders(job: Job, entrant: str) -> list[Path]:
    """Folders of the entrant's adapters on the step's model: one, or none."""
    folder = job.group("adapter").get(entrant) or job.inputs.get("adapter")
    return [folder] if folder else []


def put_on(model: Any, folder: Path) -> Any:
    """MODEL with the adapter in FOLDER; `take_off` gives MODEL back as it was."""
    biases = {}
    if read_adapter_config(folder).get("bias", "none") != "none":
        # The adapter's biases are written over those of the model.
        biases = {name: weight.detach().clone() for name, weight in model.named_parameters() if name.endswith("bias")}
    adapted = load_adapter(model, folder)
    adapted.biases_below = biases
    return adapted


def take_off(adapted: Any) -> Any:
    """The model below an adapter of `put_on`, as it was before: peft's `unload` would leave modules that the adapter has in full."""
    if getattr(adapted.active_peft_config, "is_prompt_learning", False):
        return adapted.get_base_model()  # prompt-learning adapters wrap the model
    import torch
    from peft.utils import ModulesToSaveWrapper

    modules = {name: module for name, module in adapted.get_base_model().named_modules() if isinstance(module, ModulesToSaveWrapper)}
    biases, model = adapted.biases_below, adapted.unload()
    for name, module in modules.items():
        model.set_submodule(name, module.original_module)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name in biases:
                weight.copy_(biases[name])
    return model


def virtual_tokens(job: Job) -> int:
    """Largest number of virtual tokens (trained prompts and prefixes) that any adapter prepends to a row."""
    folders = [*job.group("adapter").values(), *([job.inputs["adapter"]] if "adapter" in job.inputs else [])]
    files = [folder / "adapter_config.json" for folder in folders]
    # A missing file is reported when the adapter is loaded.
    configurations = [json.loads(file.read_text("utf-8")) for file in files if file.is_file()]
    return max((int(one.get("num_virtual_tokens") or 0) for one in configurations), default=0)


def folder_of(job: Job, entrant: str) -> Path:
    """Output folder of an entrant's predictions."""
    folder = job.output / entrant
    folder.mkdir(exist_ok=True)
    return folder
