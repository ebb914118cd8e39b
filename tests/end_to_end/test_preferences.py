"""The how-tos of preferences and of distillation: every command of both is run; a model learns to be brief, and a smaller one from it."""

import csv
import json
import re
import shutil

import pytest

from tests.end_to_end.conftest import ROOT, Place

PAGES = "".join((ROOT / f"docs/how-to/{name}.md").read_text("utf-8") for name in ("preferences", "distill"))
BLOCKS = re.findall(r"^```sh\n(.*?)^```$", PAGES, re.MULTILINE | re.DOTALL)
COMMANDS = list(dict.fromkeys(line for block in BLOCKS for line in block.splitlines()))

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def followed(tmp_path_factory):
    """The example, after all commands of the page, and what they said."""
    root = tmp_path_factory.mktemp("preferences")
    shutil.copytree(ROOT / "specs/examples/preferences", root, dirs_exist_ok=True)
    place, said = Place(root), {}
    enter, *commands = (line.partition("#")[0].split() for line in COMMANDS)
    assert enter == ["cd", "specs/examples/preferences"]
    for command in commands:
        said[" ".join(command)] = place.run(*command, check=command[:2] != ["engine", "plan"])
    return place, said


def metrics(place, step):
    return json.loads((place.root / f"metrics/{step}.json").read_text())


def test_the_page_has_what_it_takes_from_a_supervised_model_to_a_preferred_one(followed):
    place, said = followed
    assert "reference-sft-brief" in said["engine plan"].stdout
    assert said["engine plan"].stdout.count("reference-sft-brief") == 1, "one reference for two values of beta"
    assert said["engine build"].returncode == 0
    before, after = (metrics(place, f"evaluate-{name}")["brief"] for name in ("sft", "brief-beta_1_0"))
    assert after["length"] < before["length"] / 4
    assert after["exact_match"] > before["exact_match"] + 0.5


def test_pairs_of_its_own_samples_teach_it_as_much_and_leave_held_out_prompts_out(followed):
    place, _ = followed
    made, divided = metrics(place, "pair-samples"), metrics(place, "split-own")
    assert made["models"]["sft"]["chosen"] == made["pairs"] > 50 and made["margin"] == 1
    assert made["chosen_tokens"] < made["rejected_tokens"] / 4
    assert divided["validation"] and not divided["test"]

    def prompts(task, *splits):
        files = [place.root / f"artifacts/split-{task}/{split}.jsonl" for split in splits]
        return {json.loads(line)["prompt"] for file in files for line in file.read_text().splitlines()}

    for split in ("train", "validation"):
        assert prompts("own", split) <= prompts("brief", split)
    before, after = (metrics(place, f"evaluate-{name}")["brief"] for name in ("sft", "own"))
    assert after["length"] < before["length"] / 4 and after["exact_match"] > before["exact_match"] + 0.5


def test_a_smaller_model_comes_close_to_the_brief_one(followed):
    place, said = followed
    assert "98 bytes per supervised token" in said["engine plan"].stdout
    with (place.root / "plots/train-small.csv").open() as file:
        first, *_ = csv.DictReader(file)
    held_out = metrics(place, "train-small")["validation"]["brief"]
    assert held_out["kl"] < float(first["kl"]) / 5 and held_out["agreement"] > 0.75
    kept = metrics(place, "logits-brief-beta_1_0-brief-small-top16")
    assert kept["train"]["rest"] < 0.1 and kept["train"]["bytes"] == 98 * kept["train"]["supervised_tokens"]


def test_rewards_are_recorded_for_every_step_and_for_held_out_pairs(followed):
    place, _ = followed
    with (place.root / "plots/train-brief-beta_1_0.csv").open() as file:
        first, *_, last = csv.DictReader(file)
    assert float(first["loss"]) == pytest.approx(0.693147, abs=1e-5) and float(last["margin"]) > 1
    held_out = metrics(place, "train-brief-beta_1_0")["validation"]["brief"]
    assert held_out["accuracy"] > 0.9 and held_out["margin"] > 1


def test_a_second_build_has_nothing_to_do(followed):
    place, _ = followed
    assert set(place.plan().values()) == {"keep"}
    shown = place.run("engine", "plan", check=False).stdout
    pairs = metrics(place, "tokenize-brief-pairs-tiny")
    assert f"{pairs['train']['pairs'] + pairs['validation']['pairs']:,} pairs" in shown
    place.edit("specs/brief.toml", "seed        = 1", "seed        = 2")
    assert f"{pairs['train']['pairs']:,} rows per epoch" in place.run("engine", "plan", check=False).stdout
    assert place.plan()["reference-sft-brief"] == "keep", "another seed of the training is no other reference"
