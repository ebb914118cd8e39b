"""`engine inspect` on a built workspace: by experiment and by content address, as a table and as JSON, and what it cannot find."""

import json

import pytest

from tests.end_to_end.conftest import Place, address

pytestmark = pytest.mark.slow


def test_inspect_by_name_and_by_address(built: Place):
    shown = built.run("engine", "inspect", "two", "1", "--task", "b").stdout
    assert "two: row 1 of" in shown and "of b (train); loss per supervised token: base " in shown
    assert "supervised" in shown and '"<|endoftext|>"' in shown and "\x1b" not in shown
    answer = json.loads(built.run("engine", "inspect", "two", "1", "--task", "b", "--json").stdout)
    assert answer["positions"][-1]["supervised"] and not answer["positions"][0]["supervised"]
    digest = address(built.root / "artifacts/train-two.provenance.json")
    by_address = built.run("engine", "inspect", digest.removeprefix("sha256:")[:12], "1", "--task", "b", "--json").stdout
    assert json.loads(by_address) == answer
    validation = json.loads(built.run("engine", "inspect", "specs/one.toml", "--split", "validation", "--json").stdout)
    assert (validation["experiment"], validation["task"], validation["split"]) == ("one", "a", "validation")


@pytest.mark.parametrize(
    ("arguments", "messages"),
    [
        (["tow"], ["unknown experiment, spec or adapter: tow", "did you mean 'two'?"]),
        (["one", "--task", "b"], ["does not train on task 'b'", "specs/one.toml:8"]),
        (["one", "100000"], ["row 100000 is out of range", "give a number from 0 to"]),
    ],
)
def test_what_is_not_there(built: Place, arguments: list[str], messages: list[str]):
    refused = built.run("engine", "inspect", *arguments, check=False)
    assert refused.returncode == 1 and "Traceback" not in refused.stderr
    assert all(message in refused.stderr for message in messages), refused.stderr


def test_what_is_not_built(place: Place):
    for path in (place.root / "artifacts/train-one").iterdir():
        path.unlink()
    (place.root / "artifacts/train-one").rmdir()
    refused = place.run("engine", "inspect", "one", check=False)
    assert refused.returncode == 1 and "not built: artifacts/train-one" in refused.stderr and "engine build train-one" in refused.stderr
