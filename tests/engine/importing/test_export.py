"""`engine show --as`: the nearest configuration of another tool: its keys are that tool's own, and it imports as the same experiment."""

import shutil
from pathlib import Path

import pytest
import yaml

from engine.core.errors import UserError
from engine.importing.exporting import EXPORTERS, export
from engine.importing.importing import import_files
from engine.importing.schemas import listed, names
from engine.spec.load import load_spec

ROOT = Path(__file__).parents[3]
SPECS = sorted(path for folder in ("specs", "specs/examples/chats/specs") for path in (ROOT / folder).glob("*.toml"))
PINNED = '"0123456789abcdef0123456789abcdef01234567"'


def loadable(path: Path) -> bool:
    try:
        load_spec(path, ROOT)
    except UserError:
        return False
    return True


@pytest.mark.parametrize("tool", EXPORTERS)
@pytest.mark.parametrize("path", [path for path in SPECS if loadable(path)], ids=lambda path: path.stem)
def test_every_key_that_is_written_is_one_of_the_tool(path, tool):
    text = export(load_spec(path, ROOT), tool)
    written = yaml.safe_load(text)
    assert written.keys() <= names(tool)
    for dataset in written.get("datasets", ()):
        assert dataset.keys() <= listed(tool, "dataset_keys")
    assert "# What it cannot say:" in text


@pytest.mark.parametrize(
    ("name", "tool"),
    [
        *(("chat.yml", "axolotl"), ("factory.yaml", "llamafactory"), ("trl.yaml", "trl"), ("text.yml", "axolotl")),
        *(("pairs.yml", "axolotl"), ("factory-pairs.yaml", "llamafactory"), ("trl-pairs.yaml", "trl")),
        *(("factory-kto.yaml", "llamafactory"), ("trl-kto.yaml", "trl")),
    ],
)
def test_an_imported_experiment_is_the_same_after_a_journey_there_and_back(name, tool, workspace):
    def spec(path: Path) -> Path:
        ((shown, text),) = import_files([path], workspace, Path("specs"), tool).files.items()
        (workspace / shown).parent.mkdir(exist_ok=True)
        (workspace / shown).write_text(text.replace('"main"', PINNED), "utf-8")
        return workspace / shown

    first = load_spec(spec(workspace / name), workspace)
    folder = workspace / "artifacts/split-pairs"
    folder.mkdir(parents=True)
    shutil.copy(workspace / "data/pairs.json", folder / "train.jsonl")
    (workspace / "back.yml").write_text(export(first, tool), "utf-8")
    if tool == "llamafactory":
        (workspace / "data/dataset_info.json").write_text(
            '{"pairs": {"file_name": "pairs.json"}, "talks": {"file_name": "pairs.json"}, "judged": {"file_name": "pairs.json", '
            '"ranking": true, "columns": {"prompt": "instruction", "chosen": "chosen", "rejected": "rejected"}}, '
            '"thumbs": {"file_name": "pairs.json", "columns": {"prompt": "instruction", "response": "output", "kto_tag": "good"}}}',
            "utf-8",
        )
    second = load_spec(spec(workspace / "back.yml"), workspace)
    one, other = first.experiment, second.experiment
    assert other.training.method == one.training.method
    for field in (
        "global_batch",
        "learning_rate",
        "schedule",
        "optimizer",
        "betas",
        "precision",
        "epochs",
        "steps",
        "batching",
        "objective",
    ):
        assert getattr(other.training, field) == getattr(one.training, field), field
    assert other.tokenization.max_length == one.tokenization.max_length and other.tokenization.mask == one.tokenization.mask
    assert other.model == one.model and other.experiment.seed == one.experiment.seed
