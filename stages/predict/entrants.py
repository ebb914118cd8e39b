"""Who answers: a model by itself, with one adapter, or with several in turn; the model is loaded once."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from stages.models.folders import load_adapter, load_model
from stages.process.job import Job


def load(folder: Path) -> Any:
    """The model in FOLDER, on the first device where there is one."""
    import torch

    model = load_model(folder)
    return model.to("cuda") if torch.cuda.is_available() else model


def entrants(model: Any, job: Job) -> Iterator[tuple[str, Any]]:
    """Name and model, ready to answer, of everyone who is asked; the name is empty where it is the step's own model.

    Each model is good until the next one is taken: they share the weights of MODEL.
    """
    if several := job.group("adapter"):
        for name, folder in sorted(several.items()):
            yield name, (adapted := load_adapter(model, folder))
            take_off(adapted)
    else:
        yield "", load_adapter(model, job.inputs["adapter"]) if "adapter" in job.inputs else model


def adapter_folders(job: Job, entrant: str) -> list[Path]:
    """The folders of the adapters that an entrant has on the step's model: one, or none."""
    folder = job.group("adapter").get(entrant) or job.inputs.get("adapter")
    return [folder] if folder else []


def take_off(adapted: Any) -> Any:
    """The model below an adapter, as it was before; the adapter's layers are gone from it."""
    if getattr(adapted.active_peft_config, "is_prompt_learning", False):
        return adapted.get_base_model()  # such an adapter stands beside the model
    return adapted.unload()


def virtual_tokens(job: Job) -> int:
    """Positions that the largest of the adapters takes for itself, before the row: prompts and prefixes that were learned."""
    folders = [*job.group("adapter").values(), *([job.inputs["adapter"]] if "adapter" in job.inputs else [])]
    files = [folder / "adapter_config.json" for folder in folders]
    # One that is not there is told of when the adapter is loaded.
    configurations = [json.loads(file.read_text("utf-8")) for file in files if file.is_file()]
    return max((int(one.get("num_virtual_tokens") or 0) for one in configurations), default=0)


def folder_of(job: Job, entrant: str) -> Path:
    """Where the predictions of an entrant go."""
    folder = job.output / entrant
    folder.mkdir(exist_ok=True)
    return folder
