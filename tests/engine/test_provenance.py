"""The statement beside an artifact: what is written is what is read, in the shape that in-toto and SLSA name."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.provenance import Provenance, from_statement, parse

HEX = st.text("0123456789abcdef", min_size=64, max_size=64)
TEXT = st.text(max_size=12)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT, st.lists, max_leaves=4
)
MATERIALS = st.fixed_dictionaries({"path": TEXT, "md5": st.sampled_from(["0" * 32, "1" * 32 + ".dir"])})

FULL = Provenance(
    step="train-one",
    kind="train",
    digest="sha256:" + "a" * 64,
    files={"adapter_model.safetensors": "b" * 64},
    identity="sha256:" + "c" * 64,
    recipe={"r": 8},
    inputs={"tokens/a": {"path": "artifacts/tokenize-a", "md5": "d" * 32 + ".dir"}},
    git_commit="e" * 40,
    started="2026-01-01T00:00:00+00:00",
    finished="2026-01-01T00:00:05+00:00",
    measured={"seconds": 5.0},
)


@given(
    digest=HEX,
    files=st.dictionaries(TEXT, HEX, max_size=3),
    recipe=st.dictionaries(TEXT, VALUES, max_size=3),
    inputs=st.dictionaries(TEXT.filter(lambda role: role != "git"), MATERIALS, max_size=3),
    accepted=st.lists(st.dictionaries(TEXT, TEXT, max_size=2), max_size=2),
    commit=st.none() | HEX,
)
def test_what_is_written_is_what_is_read(digest, files, recipe, inputs, accepted, commit):
    made = Provenance(
        "s",
        "train",
        f"sha256:{digest}",
        files,
        "sha256:1",
        recipe,
        inputs,
        git_commit=commit,
        accepted=tuple(accepted),
        spec="specs/a.toml:3",
    )
    assert parse(made.text()) == made


def test_the_shape_is_that_of_in_toto_and_slsa():
    content = json.loads(FULL.text())
    assert content["_type"] == "https://in-toto.io/Statement/v1" and content["predicateType"] == "https://slsa.dev/provenance/v1"
    assert content["subject"][0] == {"name": "artifacts/train-one", "digest": {"sha256": "a" * 64}}
    assert content["subject"][1]["name"] == "artifacts/train-one/adapter_model.safetensors"
    definition, details = content["predicate"]["buildDefinition"], content["predicate"]["runDetails"]
    assert set(definition) == {"buildType", "externalParameters", "internalParameters", "resolvedDependencies"}
    assert [m["digest"] for m in definition["resolvedDependencies"]] == [{"md5": "d" * 32}, {"gitCommit": "e" * 40}]
    assert details["builder"]["id"] and details["metadata"]["startedOn"] < details["metadata"]["finishedOn"]


@pytest.mark.parametrize(
    "text", ["", "no json", "[]", "{}", '{"digest": "sha256:00"}', '{"subject": []}', '{"subject": [1], "predicate": 2}']
)
def test_what_is_no_statement_of_ours_is_none(text: str):
    assert parse(text) is None


def test_an_acceptance_is_added_and_changes_nothing_else():
    note = {"from": "x", "to": "y"}
    accepted = FULL.accept(note)
    assert accepted.accepted == (note,) and from_statement(accepted.statement()) == accepted
    assert accepted.accept(note).accepted == (note, note)
