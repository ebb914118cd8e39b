"""The statement beside an artifact: what is written is what is read, in the shape that in-toto and SLSA name."""

import base64
import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.dvc import run_records
from engine.dvc.run_records import RunRecord
from engine.dvc.writing import Cache
from engine.identity.provenance import Provenance, parse

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
    beside={"metrics/train-one.json": b'{"loss": 1.5}\n'},
)


@given(
    digest=HEX,
    files=st.dictionaries(TEXT, HEX, max_size=3),
    recipe=st.dictionaries(TEXT, VALUES, max_size=3),
    inputs=st.dictionaries(TEXT.filter(lambda role: role != "git"), MATERIALS, max_size=3),
    beside=st.dictionaries(TEXT, st.binary(max_size=9), max_size=2),
)
def test_what_is_written_is_what_is_read(digest, files, recipe, inputs, beside):
    made = Provenance(
        "s",
        "train",
        f"sha256:{digest}",
        files,
        "sha256:1",
        recipe,
        inputs,
        beside=beside,
    )
    assert parse(made.text()) == made


def test_the_shape_is_that_of_in_toto_and_slsa():
    content = json.loads(FULL.text())
    assert content["_type"] == "https://in-toto.io/Statement/v1" and content["predicateType"] == "https://slsa.dev/provenance/v1"
    assert content["subject"][0] == {"name": "artifacts/train-one", "digest": {"sha256": "a" * 64}}
    assert content["subject"][1]["name"] == "artifacts/train-one/adapter_model.safetensors"
    definition, details = content["predicate"]["buildDefinition"], content["predicate"]["runDetails"]
    assert set(definition) == {"buildType", "externalParameters", "internalParameters", "resolvedDependencies"}
    assert [m["digest"] for m in definition["resolvedDependencies"]] == [{"md5": "d" * 32}]
    assert details["builder"]["id"] and "metadata" not in details
    (byproduct,) = details["byproducts"]
    assert byproduct["name"] == "metrics/train-one.json" and base64.b64decode(byproduct["content"]) == b'{"loss": 1.5}\n'


@pytest.mark.parametrize(
    "text", ["", "no json", "[]", "{}", '{"digest": "sha256:00"}', '{"subject": []}', '{"subject": [1], "predicate": 2}']
)
def test_what_is_no_statement_of_ours_is_none(text: str):
    assert parse(text) is None


RAN = RunRecord("train-one", "f" * 32, "2026-01-01T00:00:00+00:00", "2026-01-01T00:00:05+00:00", {"cores": 2}, {"seconds": 5.0})


def test_an_acceptance_is_added_to_the_run_record_and_changes_nothing_else():
    note = {"from": "x", "to": "y"}
    accepted = RAN.accept(note)
    assert accepted.accepted == (note,) and run_records.parse(accepted.text()) == accepted
    assert accepted.accept(note).accepted == (note, note) and run_records.parse(RAN.text()) == RAN


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 1}', '{"format": 2, "step": "a"}', "null"])
def test_what_is_no_run_record_is_none(text: str):
    assert run_records.parse(text) is None


def test_every_run_of_one_result_is_kept_and_told_by_the_last(tmp_path):
    cache = Cache(tmp_path)
    later = replace(RAN, finished="2026-01-02T00:00:00+00:00")
    for record in (later, RAN, RAN, RAN.accept({"to": "y"})):
        run_records.keep(cache, record)
    found = run_records.kept(tmp_path, "train-one", RAN.statement)
    assert len(found) == 3 and found[-1] == later and run_records.kept(tmp_path, "train-one", "0" * 32) == []
    assert run_records.merged(found) == later.accept({"to": "y"})
    assert run_records.merged([]) is None


def test_half_an_entry_of_the_run_cache_is_no_record(tmp_path):
    run_records.keep(Cache(tmp_path), RAN)
    (path,) = (tmp_path / run_records.folder_of("train-one", RAN.statement)).iterdir()
    (path.parent / "half").write_text(path.read_text()[:200])
    (path.parent / "other").write_text("[1]\n")
    assert run_records.kept(tmp_path, "train-one", RAN.statement) == [RAN]
