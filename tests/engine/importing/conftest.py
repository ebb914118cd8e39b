"""Small configurations of other tools, and a workspace to import them into."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine.importing.importing import Import, import_files

CONFIGS = Path(__file__).parent / "configs"
TOKENIZER = Path(__file__).parents[2] / "stages/foreign/tokenizer"

AXOLOTL = """\
base_model: models/tiny
adapter: lora
lora_r: 4
lora_alpha: 8
lora_target_linear: true
datasets:
  - path: data/pairs.json
    type: alpaca
sequence_len: 400
micro_batch_size: 1
learning_rate: 1e-4
bf16: false
"""
FACTORY = """\
model_name_or_path: models/tiny
stage: sft
do_train: true
finetuning_type: full
dataset: pairs
template: chatml
cutoff_len: 60
learning_rate: 1.0e-5
"""
ROWS = [
    {"instruction": "Name a river.", "input": "", "output": "The Loire."},
    {"instruction": "Translate.", "input": "Brot", "output": "Bread."},
    {"instruction": "Count.", "input": "", "output": "One, two, three, four. " * 9},
]


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    shutil.copytree(CONFIGS, tmp_path / "w")
    return tmp_path / "w"


@pytest.fixture
def imported(workspace: Path) -> Callable[..., Import]:
    """Import configurations by their names."""

    def imported(*names: str, **options: Any) -> Import:
        return import_files([workspace / name for name in names], workspace, Path("specs"), **options)

    return imported


@pytest.fixture
def write(workspace: Path) -> Callable[[str, str], str]:
    """Write a configuration; gives its name."""

    def write(text: str, name: str = "new.yml") -> str:
        (workspace / name).write_text(text, "utf-8")
        return name

    return write


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """A workspace with configurations, rows, and the tokenizer and the configuration of a tiny model."""
    for folder in ("data", "specs", "models"):
        (tmp_path / folder).mkdir()
    shutil.copytree(TOKENIZER, tmp_path / "models/tiny")
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 330}
    (tmp_path / "models/tiny/config.json").write_text(json.dumps({"model_type": "llama", "max_position_embeddings": 512, **sizes}), "utf-8")
    (tmp_path / "data/pairs.json").write_text(json.dumps(ROWS), "utf-8")
    (tmp_path / "data/dataset_info.json").write_text('{"pairs": {"file_name": "pairs.json"}}', "utf-8")
    (tmp_path / "axolotl.yml").write_text(AXOLOTL, "utf-8")
    (tmp_path / "factory.yaml").write_text(FACTORY, "utf-8")
    return tmp_path
