"""The configurations of models and adapters in folders, for checks: one that cannot be read is None, and the step that loads it fails."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from engine.core.errors import UserError
from stages.models.folders import read_adapter_config as read

CHAT_TEMPLATE = "chat_template.jinja"
"""The file with a tokenizer's chat template, which takes precedence over one in tokenizer_config.json, as in transformers."""


def read_config(model: Path) -> Mapping[str, Any] | None:
    """The content of config.json in a model's folder; None if it is missing or cannot be parsed."""
    try:
        values = json.loads((model / "config.json").read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return values if isinstance(values, dict) else None


def has_template_file(model: Path) -> bool:
    """Whether a model's folder has its chat template in a file of its own, and not the same one in tokenizer_config.json."""
    try:
        template = (model / CHAT_TEMPLATE).read_text("utf-8")
        config = json.loads((model / "tokenizer_config.json").read_text("utf-8"))
    except (OSError, ValueError):
        return False
    return not isinstance(config, dict) or config.get("chat_template") != template


def read_adapter_config(folder: Path) -> Mapping[str, Any] | None:
    """The configuration of the adapter in FOLDER; None if it is missing or broken, which `adapter_problems` reports."""
    try:
        return read(folder)
    except UserError:
        return None
