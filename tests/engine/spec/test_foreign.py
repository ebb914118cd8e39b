"""Keys of other trainers' configurations, and keys of ours in the wrong table, are answered with the place they belong to."""

import dataclasses
import re
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
from peft import LoraConfig
from transformers import Seq2SeqTrainingArguments
from trl import ModelConfig, ScriptArguments, SFTConfig

from engine.core.errors import Problem
from engine.spec.foreign import FOREIGN, WITHOUT_KEY, foreign_hint, key_of
from engine.spec.places import _places
from engine.spec.sections import Experiment, Mixture, Resources, Tokenization, Training

SECTIONS = {"training": Training, "mixture": Mixture, "tokenization": Tokenization, "resources": Resources}
Fails = Callable[[str], list[Problem]]


INSTALLED = {source.__name__: source for source in (Seq2SeqTrainingArguments, SFTConfig, ModelConfig, ScriptArguments, LoraConfig)}
TRAINERS = {name: [field.name for field in dataclasses.fields(source)] for name, source in INSTALLED.items()}
TRAINERS["others"] = [*FOREIGN, *WITHOUT_KEY]
TRAINERS |= tomllib.loads((Path(__file__).parent / "foreign_names.toml").read_text())
GENERIC = {"name", "path", "revision", "split", "task"}
"""Words of ours with a meaning in many tables: what is meant by one in a wrong table cannot be told."""


@pytest.mark.parametrize("trainer", TRAINERS)
@pytest.mark.parametrize("table", ["", "training", "mixture", "tokenization", "resources"])
def test_every_name_of_a_trainer_is_answered_in_every_table_that_has_no_such_key(trainer: str, table: str, fails: Fails, valid: str):
    fields = Experiment.model_fields
    own = SECTIONS[table].model_fields if table else fields
    names = [name for name in TRAINERS[trainer] if name not in own]
    lines = "".join(f"{name} = 1\n" for name in names)
    text = f"{valid}\n[{table}]\n" if table and f"[{table}]" not in valid else valid
    found = {
        problem.what: problem.hint or "" for problem in fails(text.replace(f"[{table}]", f"[{table}]\n{lines}") if table else lines + text)
    }
    what = "unknown key '{}' in " + table if table else "unknown section '{}'"
    answers = {name: found[what.format(name)] for name in names}
    told = re.compile(
        r"in a spec this is |a spec has no such key: |did you mean '|'\w+' belongs in another table: |'\w+' is a key of kind "
    )
    assert {name: hint for name, hint in answers.items() if not told.match(hint)}.keys() <= GENERIC
    keys = {place for places in _places(Experiment).values() for place in places}
    for name, hint in answers.items():
        if hint.startswith(("in a spec", "a spec has no such key")):
            assert hint == foreign_hint(name) and key_of(name) in {None, *keys}, name


def test_no_name_that_is_a_key_of_ours_is_said_to_be_none():
    assert set(WITHOUT_KEY) & set(_places(Experiment)) <= {"stage"}, "LLaMA-Factory's stage is another than ZeRO's"


def test_every_key_that_a_hint_names_is_one_of_a_spec():
    places = {place for found in _places(Experiment).values() for place in found}
    assert [(name, key_of(name)) for name in FOREIGN if key_of(name) not in places] == []
    assert not set(FOREIGN) & set(WITHOUT_KEY)


AXOLOTL = ["base_model", "micro_batch_size", "sequence_len", "sample_packing", "lora_r", "lora_target_linear", "val_set_size", "num_epochs"]
FACTORY = ["model_name_or_path", "cutoff_len", "finetuning_type", "lora_rank", "lora_target", "template", "dataset", "quantization_bit"]


@pytest.mark.parametrize("name", [*AXOLOTL, *FACTORY, "per-device-train-batch-size"])
def test_names_of_flat_configurations_are_answered_at_the_top_too(name: str, fails: Fails, valid: str):
    (problem,) = [problem for problem in fails(f"{name} = 1\n{valid}") if name in problem.what]
    assert problem.what == f"unknown section '{name}'" and problem.hint == foreign_hint(name) and "in a spec this is " in problem.hint


@pytest.mark.parametrize(
    ("key", "hint"),
    [
        ("r = 8", "'r' belongs in another table: training.method.r"),
        ("eval_max_new_tokens = 8", "in a spec this is tasks.<name>.max_new_tokens"),
        ("rope_scaling = 'linear'", "'rope_scaling' belongs in another table: model.rope_scaling"),
        ("beta2_decay = 0.8", "'beta2_decay' belongs in another table: training.optimizer.beta2_decay"),
        ("mask = 'full'", "'mask' belongs in another table: tokenization.mask"),
        ("rank = 8", "in a spec this is training.method.r"),
        ("learning_rat = 1", "did you mean 'learning_rate'?"),
    ],
)
def test_a_key_in_the_wrong_table_is_told_its_place(key: str, hint: str, fails: Fails, valid: str):
    (problem,) = [problem for problem in fails(valid.replace("[training]", f"[training]\n{key}")) if "unknown key" in problem.what]
    assert problem.hint == hint


@pytest.mark.parametrize(
    ("table", "line", "place"),
    [
        ("mixture", "temperature = 2.0", "mixture.sampler.temperature"),
        ("model", "max_length = 64", "model.architecture.max_length"),
        ("tokenization", "template = 'x'", "tokenization.format.template"),
        ("tasks.headline", "limit = 5", "tasks.headline.source.limit"),
        ("resources", "stage = 2", "resources.zero.stage"),
    ],
)
def test_a_key_that_belongs_deeper_in_its_table_is_told_that_place_first(table: str, line: str, place: str, fails: Fails, valid: str):
    """Also where other trainers mean something else by the word, or where other tables have it too."""
    text = valid if f"[{table}]" in valid else f"{valid}\n[{table}]\n"
    (problem,) = [problem for problem in fails(text.replace(f"[{table}]", f"[{table}]\n{line}")) if "unknown key" in problem.what]
    assert problem.hint and problem.hint.startswith(f"'{line.split()[0]}' belongs in another table: ") and place in problem.hint


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
