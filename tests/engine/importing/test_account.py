"""The account of an import: every key of a file and of a tool's own schema is in it exactly once."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.importing import axolotl, llamafactory, training_arguments, trl
from engine.importing.common import Request
from engine.importing.documents import read
from engine.importing.importing import TOOLS
from engine.importing.schemas import listed, names
from engine.spec.notation import dotted
from tests.engine.importing.conftest import CONFIGS

ARGUMENTS = (training_arguments.WITHOUT_MEANING, training_arguments.REFUSED, training_arguments.HANDLED)
TABLES: dict[str, list[Any]] = {
    "axolotl": [axolotl.WITHOUT_MEANING, axolotl.REFUSED, axolotl.HANDLED],
    "llamafactory": [llamafactory.WITHOUT_MEANING, llamafactory.REFUSED, llamafactory.HANDLED, *ARGUMENTS],
    "trl": [trl.WITHOUT_MEANING, trl.REFUSED, trl.HANDLED, *ARGUMENTS],
}
"""How a module accounts for the keys of its tool: without meaning, refused, or read one by one."""
PLUGINS = {"axolotl": ("plugin_keys",), "llamafactory": ("megatron_keys",), "trl": ()}


@pytest.mark.parametrize("tool", TABLES)
def test_every_key_of_the_schema_is_in_exactly_one_table(tool):
    told = [key for table in TABLES[tool] for key in table]
    schema = names(tool) - listed(tool, *PLUGINS[tool])
    assert sorted(set(told)) == sorted(schema)
    assert len(told) == len(set(told)), sorted(key for key in set(told) if told.count(key) > 1)


def keys_of(value: Any, above: tuple[str | int, ...] = ()) -> Iterator[str]:
    """Every key at any depth, as the account names it."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        if isinstance(key, str):
            yield dotted((*above, key))
        yield from keys_of(inner, (*above, key))


VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 300),
    st.floats(0, 2, allow_nan=False),
    st.sampled_from(["auto", "lora", "cosine", "adamw_torch", "train", "sft", "x y", "2e-5", "a,b"]),
    st.lists(st.sampled_from(["q_proj", "wandb"]), max_size=2),
    st.dictionaries(st.sampled_from(["stage", "inner", "bos_token"]), st.integers(0, 3), max_size=2),
)


def files(tool: str) -> st.SearchStrategy[dict[str, Any]]:
    known = sorted(names(tool))
    return st.dictionaries(st.one_of(st.sampled_from(known), st.sampled_from(["colour", "lora_rr"])), VALUES, max_size=25)


BASES: dict[str, dict[str, Any]] = {
    "axolotl": {
        "base_model": "a/b",
        "datasets": [{"path": "a/c", "type": "chat_template"}, {"path": "a/d", "type": "chat_template", "split": "train[:5]"}],
    },
    "llamafactory": {"model_name_or_path": "a/b", "dataset": "pairs,talks", "dataset_dir": "data", "do_train": True, "stage": "sft"},
    "trl": {"model_name_or_path": "a/b", "dataset_name": "a/c"},
}


@pytest.mark.parametrize("tool", TABLES)
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(data=st.data())
def test_every_key_of_any_file_and_of_the_schema_is_accounted_for_once(tool, data, workspace: Path):
    content = data.draw(files(tool)) | BASES[tool]
    path = workspace / "any.yml"
    path.write_text(yaml.safe_dump(content, sort_keys=False), "utf-8")
    draft = TOOLS[tool](Request(workspace, (read(path, "any.yml"),), 1, data.draw(st.booleans())))
    entries = draft.entries
    assert set(keys_of(content)) <= entries.keys()
    assert names(tool) <= entries.keys()
    assert all(entry.key == key for key, entry in entries.items())
    given_keys = {key for key, entry in entries.items() if entry.where is not None and entry.where.file == "any.yml"}
    assert given_keys <= set(keys_of(content))
    for key in given_keys & {"colour", "lora_rr"}:
        assert entries[key].fate == ("ignored by the tool" if tool == "axolotl" else "refused")
    refused = [entry for entry in entries.values() if entry.fate == "refused"]
    assert bool(draft.problems) >= any(not entry.differs for entry in refused)


@pytest.mark.parametrize("name", sorted(path.name for path in CONFIGS.glob("*.y*ml")))
def test_every_key_of_the_small_configurations_has_a_fate_and_a_reason_or_a_place(name, workspace):
    document = read(workspace / name, name) if name != "key-twice.yml" else None
    if document is None:
        return
    from engine.importing.importing import recognised

    draft = TOOLS[recognised(document)](Request(workspace, (document,), 1, True))
    content = yaml.safe_load((workspace / name).read_text("utf-8"))
    unmerged = {key for key in keys_of(content) if key in draft.entries}
    assert unmerged == set(keys_of(content))
    assert [entry.key for entry in draft.entries.values() if not (entry.ours or entry.why)] == []
