"""Keys of other trainers' configurations, and keys of ours in the wrong table, are answered with the place they belong to."""

import dataclasses
import re
from collections.abc import Callable

import pytest
from peft import LoraConfig
from transformers import Seq2SeqTrainingArguments
from trl import ModelConfig, ScriptArguments, SFTConfig

from engine.core.errors import Problem
from engine.spec.foreign import FOREIGN, WITHOUT_KEY, foreign_hint, key_of
from engine.spec.places import _places
from engine.spec.sections import Experiment

Fails = Callable[[str], list[Problem]]


@pytest.mark.parametrize("source", [Seq2SeqTrainingArguments, SFTConfig, ModelConfig, ScriptArguments, LoraConfig])
def test_every_name_of_the_installed_trainers_is_answered(source: type):
    ours = _places(Experiment)
    names = [field.name for field in dataclasses.fields(source)]
    assert [name for name in names if name not in ours and not foreign_hint(name)] == []


def test_every_key_that_a_hint_names_is_one_of_a_spec():
    places = {place for found in _places(Experiment).values() for place in found}
    assert [(name, key_of(name)) for name in FOREIGN if key_of(name) not in places] == []
    assert not set(FOREIGN) & set(WITHOUT_KEY)


AXOLOTL = ["base_model", "micro_batch_size", "sequence_len", "sample_packing", "lora_r", "lora_target_linear", "val_set_size", "num_epochs"]
FACTORY = ["model_name_or_path", "cutoff_len", "finetuning_type", "lora_rank", "lora_target", "template", "dataset", "quantization_bit"]


@pytest.mark.parametrize("name", [*FOREIGN, *WITHOUT_KEY])
def test_a_foreign_name_in_any_section_is_answered_with_ours(name: str, fails: Fails, valid: str):
    text = valid.replace("[training]", f"[training]\n{name} = 1")
    found = next(problem for problem in fails(text) if problem.what == f"unknown key '{name}' in training")
    wanted = (key_of(name) or "").rpartition(".")
    assert found.hint in (foreign_hint(name), f"did you mean '{wanted[2]}'?")


@pytest.mark.parametrize("name", [*AXOLOTL, *FACTORY, "per-device-train-batch-size"])
def test_names_of_flat_configurations_are_answered_at_the_top_too(name: str, fails: Fails, valid: str):
    (problem,) = [problem for problem in fails(f"{name} = 1\n{valid}") if name in problem.what]
    assert problem.what == f"unknown section '{name}'" and problem.hint == foreign_hint(name) and "in a spec this is " in problem.hint


@pytest.mark.parametrize(
    ("key", "hint"),
    [
        ("r = 8", "'r' belongs in another table: training.method.r"),
        ("mask = 'full'", "'mask' belongs in another table: tokenization.mask"),
        ("rank = 8", "in a spec this is training.method.r"),
        ("learning_rat = 1", "did you mean 'learning_rate'?"),
    ],
)
def test_a_key_in_the_wrong_table_is_told_its_place(key: str, hint: str, fails: Fails, valid: str):
    (problem,) = [problem for problem in fails(valid.replace("[training]", f"[training]\n{key}")) if "unknown key" in problem.what]
    assert problem.hint == hint


def test_a_model_given_by_hub_is_told_of_id(fails: Fails, valid: str):
    text = re.sub("name = .tiny.\narchitecture.*", 'hub = "Qwen/Qwen2.5-0.5B"', valid)
    (problem,) = [problem for problem in fails(text) if "model needs one of the keys" in problem.what]
    assert problem.hint == f"'hub': {foreign_hint('hub')}" and "model.id" in problem.hint and "model.revision" in problem.hint


def test_a_kind_that_is_written_as_a_key_is_recognised(fails: Fails, valid: str):
    text = valid.replace('kind = "jsonl"', 'hub = "ag_news"', 1)
    assert text != valid
    (problem,) = [problem for problem in fails(text) if "missing key 'kind'" in problem.what]
    assert problem.hint and problem.hint.startswith('did you mean kind = "hub"? its keys: ') and "revision" in problem.hint


def test_sizes_that_do_not_divide_are_named_with_their_values(fails: Fails, valid: str):
    (problem,) = fails(valid.replace("hidden_size = 64", "hidden_size = 64, heads = 5"))
    assert problem.what == "hidden_size (64) must be divisible by heads (5)"
