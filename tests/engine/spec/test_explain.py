"""Every value of a resolved spec, as TOML writes it, and where it comes from."""

import json
import tomllib

from hypothesis import given
from hypothesis import strategies as st

from engine.spec.explain import explain
from engine.spec.load import load_spec
from engine.spec.notation import described, dotted, toml


def test_given_values_have_a_place_and_defaults_have_none(tmp_path, write, valid):
    found = {item.key: item for item in explain(load_spec(write(valid), tmp_path))}
    assert (found["model.architecture.hidden_size"].value, str(found["model.architecture.hidden_size"].where)) == (
        "64",
        "specs/a.toml:6:48",
    )
    assert (found["model.architecture.layers"].value, found["model.architecture.layers"].where) == ("4", None)
    assert (found["training.method.kind"].value, str(found["training.method.kind"].where)) == ('"lora"', "specs/a.toml:17:10")
    assert (found["training.method.r"].value, found["training.method.r"].where) == ("16", None)
    assert (found["tokenization.mask.kind"].value, found["tokenization.mask.kind"].where) == ('"completion"', None)
    assert (found["training.betas"].value, found["training.epochs"].value) == ("[0.9, 0.999]", "none")
    assert str(found["tasks.headline.prompts"].where) == "specs/a.toml:10:11"
    # For programs the values themselves.
    assert (found["training.betas"].data, found["training.epochs"].data, found["training.method.r"].data) == ([0.9, 0.999], None, 16)
    assert json.loads(json.dumps([item.data for item in found.values()])) == [item.data for item in found.values()]


def test_values_come_in_the_order_of_the_sections(tmp_path, write, valid):
    sections = dict.fromkeys(item.key.split(".")[0] for item in explain(load_spec(write(valid), tmp_path)))
    before = ["experiment", "model", "tasks", "tokenization", "mixture", "training", "evaluation"]
    assert list(sections) == [*before, "pairs", "benchmarks", "merge", "export", "sweep", "resources"]


def test_arrays_of_tables_and_maps_are_taken_apart(tmp_path, write, valid):
    text = valid.replace('["headline"]', '["headline"]\nsampler = { kind = "weights", weights = { headline = 2 } }')
    text += '[evaluation]\nmetrics = ["length", { kind = "rouge" }]\n'
    found = {item.key: item for item in explain(load_spec(write(text), tmp_path))}
    assert (found["mixture.sampler.weights.headline"].value, found["mixture.sampler.weights.headline"].where.line) == ("2.0", 15)
    assert (found["evaluation.metrics[0].kind"].value, str(found["evaluation.metrics[0].kind"].where)) == ('"length"', "specs/a.toml:20:12")
    assert str(found["evaluation.metrics[1].kind"].where) == "specs/a.toml:20:31"
    assert found["evaluation.metrics[1].stemmer"].where is None
    assert "evaluation.metrics[2].kind" not in found


def test_a_value_of_a_part_names_the_part(tmp_path, write, valid):
    write("[training]\nweight_decay = 0.1\n", "specs/parts/a.toml")
    found = {item.key: item for item in explain(load_spec(write(f'extends = ["parts/a.toml"]\n{valid}'), tmp_path))}
    assert (found["training.weight_decay"].value, str(found["training.weight_decay"].where)) == ("0.1", "specs/parts/a.toml:2:16")


SINGLE = st.one_of(st.text(), st.integers(-(2**63), 2**63 - 1), st.booleans(), st.floats(allow_nan=False, allow_infinity=False))


@given(st.recursive(SINGLE, lambda inner: st.lists(inner, max_size=3).map(tuple) | st.dictionaries(st.text(), inner, max_size=3)))
def test_toml_reads_back_what_was_written(value):
    def lists(item):
        if isinstance(item, dict):
            return {key: lists(inner) for key, inner in item.items()}
        return [lists(inner) for inner in item] if isinstance(item, tuple) else item

    assert tomllib.loads(f"x = {toml(value)}")["x"] == lists(value)


def test_dotted_keys_are_quoted_where_toml_asks_for_it():
    assert dotted(("tasks", "head line", "prompts", 1)) == 'tasks."head line".prompts[1]'
    assert dotted(("", "a")) == '"".a'


def test_values_are_described_in_plain_words():
    values = (True, 3, 2.5, "x", "x" * 50, (), {}, 10**30)
    assert [described(value) for value in values] == [
        "true",
        "the integer 3",
        "the number 2.5",
        "the string 'x'",
        "a string",
        "an array",
        "a table",
        "a very large integer",
    ]
