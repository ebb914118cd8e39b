"""Log-probabilities under the reference model, from the step that computed them."""

import json
from collections.abc import Mapping

import numpy as np
from safetensors.numpy import load_file

from engine.core.errors import UserError
from stages.models.weights import token_digest, weights_digest
from stages.process.job import Job
from stages.tokens.files import Array, Tokens
from stages.train.loop.data import Rows


def reference_logps(job: Job, role: str = "reference") -> dict[str, dict[str, Array]]:
    """By split (`train`, `validation`) and task, the log-probability of each answer under the reference model, float32 [rows].

    ROLE: the inputs that have them, `reference`, or `mismatched` for those of mismatched answers. Raises UserError if a reference was
    computed by other weights than those that the training starts from, or for other tokens.
    """
    model = weights_digest([job.inputs["model"], *([job.inputs["adapter"]] if "adapter" in job.inputs else [])])
    tokens = {"train": job.group("tokens"), "validation": job.group("validation")}
    found: dict[str, dict[str, Array]] = {split: {} for split in tokens}
    for task, folder in sorted(job.group(role).items()):
        said = json.loads((folder / "reference.json").read_text("utf-8"))
        if said["model"] != model:
            what = f"the reference of task '{task}' is another model than the one that the training starts from"
            raise UserError(what, hint=f"weights sha256:{said['model'][:12]} and sha256:{model[:12]}; build the reference step again")
        for split, files in tokens.items():
            if said["tokens"][split] != token_digest(files[task]):
                raise UserError(f"the reference of task '{task}' was computed for other {split} tokens", hint="build its step again")
            found[split][task] = load_file(folder / f"{split}.safetensors")["logps"].astype(np.float32)
    return found


def add_mismatched(job: Job, rows: Rows, validation: Mapping[str, Rows]) -> None:
    """Add the mismatched answers that the reference step made to the ROWS of the training and to those of each task's VALIDATION."""
    logps, folders = reference_logps(job, "mismatched"), job.group("mismatched")

    def opened(split: str) -> dict[str, Tokens]:
        return {task: Tokens.open(folder / f"{split}-tokens.safetensors") for task, folder in folders.items()}

    rows.add_mismatched(opened("train"), logps["train"])
    for task, tokens in opened("validation").items():
        # Held-out rows of one prompt have no mismatched answers: no divergence is estimated of them.
        if task in validation and len(tokens):
            validation[task].add_mismatched({task: tokens}, {task: logps["validation"][task]})
