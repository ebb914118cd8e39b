"""`engine verify` against a built workspace, what was done to it behind everyone's back, and a build from nothing."""

import json

import pytest

from tests.end_to_end.conftest import Place, address

pytestmark = pytest.mark.slow


def failing(place: Place, target: str, *options: str) -> dict[str, str]:
    """The checks that do not hold, with their details."""
    done = place.run("engine", "verify", target, "--json", *options, check=False)
    found = json.loads(done.stdout)
    assert done.returncode == (0 if found["verified"] else 1), done.stderr
    return {check["what"]: check["detail"] for check in found["checks"] if not check["holds"]}


def test_what_was_built_is_what_its_provenance_says(place: Place):
    digest = address(place.root / "artifacts/train-two.provenance.json")
    assert failing(place, "train-one") == failing(place, "two") == failing(place, digest[7:19]) == failing(place, "evaluate-one") == {}
    shown = place.run("engine", "verify", "two").stdout
    assert digest[7:19] in shown and "content address" in shown and "NO" not in shown


def test_a_flipped_byte_a_stray_file_and_an_edited_input_are_named(place: Place):
    weights = place.root / "artifacts/train-one/adapter_model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.unlink()
    weights.write_bytes(bytes(content))
    found = failing(place, "one")
    assert set(found) == {"files", "content address", "record"} and "adapter_model.safetensors" in found["files"]
    (place.root / "artifacts/split-a/stray.txt").write_text("stray")
    assert "stray.txt" in failing(place, "split-a")["files"]
    place.edit("data/a.jsonl", "w1", "w2")
    assert "data/a.jsonl" in failing(place, "generate-a")["inputs"]


def test_other_code_and_another_recipe_are_named(place: Place):
    place.edit("stages/evaluate/metrics/exact_match.py", "reference.strip()", "reference.strip().strip()")
    found = failing(place, "evaluate-one")
    assert "evaluate.metrics.exact_match" in found["code"] and "changed since" in found["identity"]
    place.run("engine", "accept", "evaluate-one", "evaluate-two")
    assert failing(place, "evaluate-one") == {}, "a person has said that the change is harmless"
    place.edit("specs/parts/common.toml", "r = 2", "r = 4")
    assert set(failing(place, "train-one")) == {"identity"}


@pytest.mark.long
def test_a_build_from_nothing_gives_the_same_bytes(place: Place):
    assert failing(place, "mix-one", "--rebuild") == {}
    (place.root / "artifacts/generate-b.provenance.json").write_text("{}")
    assert "damaged" in failing(place, "generate-b")["provenance"]


def test_what_is_unknown_or_not_built_is_an_error(place: Place):
    wrong = place.run("engine", "verify", "train-on", check=False)
    assert wrong.returncode == 1 and "did you mean 'train-one'" in wrong.stderr and "Traceback" not in wrong.stderr
    (place.root / "artifacts/mix-one.provenance.json").unlink()
    missing = place.run("engine", "verify", "mix-one", check=False)
    assert missing.returncode == 1 and "mix-one is not built" in missing.stderr
