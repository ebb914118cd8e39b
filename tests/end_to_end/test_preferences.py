"""The how-tos of preferences and of distillation: every command of both is run; a model learns to be brief, and a smaller one from it."""

import csv
import json
import re
import runpy
import shutil
import subprocess
import sys
from contextlib import contextmanager, nullcontext

import pytest

from tests.end_to_end.conftest import ROOT, Place

PAGES = "".join((ROOT / f"docs/how-to/{name}.md").read_text("utf-8") for name in ("preferences", "distill"))
BLOCKS = re.findall(r"^```sh\n(.*?)^```$", PAGES, re.MULTILINE | re.DOTALL)
COMMANDS = list(dict.fromkeys(line for block in BLOCKS for line in block.splitlines()))

EXTENDS = 'extends = ["parts/colours.toml", "parts/judge.toml"]'

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
        if command[0] == "python":
            # As the page says, for the commands from here on; the page's judge serves while the build runs.
            assert EXTENDS in PAGES
            place.edit("specs/own.toml", 'extends = ["parts/colours.toml"]', EXTENDS)
            command, judge = command[2:], judging()
        else:
            judge = nullcontext()
        with judge:
            said[" ".join(command)] = place.run(*command, check=command[:2] != ["engine", "plan"])
    return place, said


@contextmanager
def judging():
    """The judge of the example while it serves; a warm Python runs what it would run."""
    script, wait = ROOT / "specs/examples/preferences/judge.py", "import sys; sys.stdin.read()"
    with subprocess.Popen([sys.executable, script, sys.executable, "-c", wait], stdin=subprocess.PIPE) as server:
        yield
        server.communicate(b"", timeout=60)
    assert server.returncode == 0


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


def test_the_preferred_model_wins_by_a_judge_that_is_asked_in_both_orders(followed):
    place, said = followed
    counts = metrics(place, "evaluate-own")["brief"]["versus"]["sft"]
    asked = [json.loads(line) for line in (place.root / "artifacts/versus-own-sft-brief/rows.jsonl").read_text().splitlines()]
    rows = counts["wins"] + counts["losses"] + counts["ties"]
    assert len(asked) == 2 * (rows - counts["equal_answers"]) > 0 and counts["unjudged"] == counts["undecided_by_order"] == 0
    assert {row["carried"]["ours"] for row in asked} == {"first", "second"}
    assert counts["value"] > 0.6 and counts["low"] > 0.5 and counts["low"] <= counts["value"] <= counts["high"]
    assert counts["value"] == pytest.approx((counts["wins"] + counts["ties"] / 2) / rows, abs=1e-6)
    shown = said["engine results specs/own.toml --metric win_rate"].stdout
    assert "differences in win_rate on the same rows" in shown and "sft" in shown


def test_the_judge_is_the_rule_that_it_says():
    judge = runpy.run_path(str(ROOT / "specs/examples/preferences/judge.py"))["verdict"]

    def better(first, second):
        answers = f"# The first answer\n{first}\n\n# The second answer\n{second}\n"
        return judge(f"# Question\nWhat colour is sky?\n\n# A good answer\n blue\n\n{answers}")["better"]

    rambling = " blue, which is to say that sky is blue"
    assert (better(" blue", rambling), better(rambling, " blue")) == ("first", "second")
    assert (better(" red", rambling), better(rambling, " red")) == ("second", "first")
    assert (better(" blue", " blue."), better(" red", " green"), better("", "")) == ("tie", "tie", "tie")


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
