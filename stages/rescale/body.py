"""Body of rescale: copies a model, and writes the scaling of its rotary positions into its configuration."""

import json
import logging
import shutil
from pathlib import Path

from engine.core.errors import UserError
from stages.models.folders import model_class, prepare_process, write_json
from stages.models.positions import positions
from stages.process.job import Job, Metrics
from stages.rescale import Parameters
from stages.rescale.configuration import Unscalable, scaled

_SUFFIXES = (".jinja", ".json", ".model", ".safetensors", ".txt")
"""Suffixes of the files that are copied: neither code nor pickles."""


def run(parameters: Parameters, job: Job) -> Metrics:
    """Write the model's folder; raises UserError if the model's positions are not rotary, or if transformers rejects the scaling."""
    prepare_process(threads=1, parts=1)
    folder = job.inputs["model"]
    config = _read(folder)
    try:
        _refuse_no_rotation(folder)
        changed = scaled(config, parameters.rope_scaling)
    except Unscalable as reason:
        raise UserError(f"model.rope_scaling does not fit {folder}: {reason}", hint="remove it, or use another kind of scaling") from None
    for path in sorted(folder.iterdir()):
        if path.is_file() and path.suffix in _SUFFIXES:
            shutil.copyfile(path, job.output / path.name)
    write_json(job.output / "config.json", changed)
    _refuse_rejected(job.output)
    before, after = (found[1] if (found := positions(one)) else None for one in (config, changed))
    return {"positions_before": before, "positions": after}


def _read(folder: Path) -> dict[str, object]:
    try:
        found = json.loads((folder / "config.json").read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{folder} contains no model: config.json is missing or broken") from error
    if not isinstance(found, dict):
        raise UserError(f"{folder}/config.json must contain a JSON object")
    return found


def _refuse_no_rotation(folder: Path) -> None:
    """Raise Unscalable if the model in FOLDER has no rotary positions: transformers would ignore the scaling."""
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise UserError(f"{folder} contains no model that transformers can load: {error}") from error
    if not getattr(config, "rope_parameters", None):
        raise Unscalable(f"{config.model_type} has no rotary positions")


def _refuse_rejected(folder: Path) -> None:
    """Raise UserError if transformers rejects the configuration in FOLDER, warns about it, or has no rotary positions for it."""
    from transformers import AutoConfig
    from transformers.utils import logging as library

    said: list[str] = []
    listener = logging.Handler(logging.WARNING)
    listener.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    library.set_verbosity_warning()
    library.add_handler(listener)
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        model_class(config)
    except (ValueError, KeyError, TypeError, OSError) as error:
        said.append(str(error))
    finally:
        library.remove_handler(listener)
        library.set_verbosity_error()
    about = [line for line in said if "rope" in line.lower()]
    if about:
        raise UserError(f"transformers rejects model.rope_scaling: {about[0]}", hint="see its kind in the reference of [model]")
