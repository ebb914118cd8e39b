"""`engine results` of built experiments: its tables, their order, and what programs and pull requests get of them."""

import csv
import json
from pathlib import Path

import pytest

from tests.support.commands import engine
from tests.support.toys import toy

VALUES = {"first": (0.5, 0.9), "second": (0.75, 0.25)}


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two experiments with the files of their evaluations."""
    root = tmp_path_factory.mktemp("workspace")
    for folder in ("specs", "metrics"):
        (root / folder).mkdir()
    (root / "a.jsonl").write_text('{"word": "x"}\n' * 9)
    for name, values in VALUES.items():
        (root / f"specs/{name}.toml").write_text(toy(name=name))
        scores = {task: {"exact_match": value, "eos_rate": 1.0, "rows": 40} for task, value in zip(("a", "b"), values, strict=True)}
        (root / f"metrics/evaluate-{name}.json").write_text(json.dumps(scores))
        folder = root / f"artifacts/evaluate-{name}"
        folder.mkdir(parents=True)
        around = {task: {"exact_match": {"value": v["exact_match"], "low": 0.1, "high": 0.95}} for task, v in scores.items()}
        (folder / "scores.json").write_text(json.dumps({"models": {name: around}}))
        one = {
            "model": name,
            "task": "a",
            "metric": "win_rate",
            "rows": 40,
            "other": "base|x",
            "value": 0.875,
            "other_value": 0.125,
            "difference": 0.75,
        }
        one |= {
            "difference": 0.75,
            "low": 0.5,
            "high": 1.0,
            "p": 0.0001220703125,
            "p_corrected": 0.0001220703125,
            "real": True,
            "trained_on": True,
        }
        method = {"confidence": 0.95, "correction": "holm"}
        (folder / "comparisons.json").write_text(json.dumps({"comparisons": [one] if name == "first" else [], "method": method}))
    return root


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(text.splitlines()))


def test_csv_has_every_value_with_its_interval(workspace: Path):
    found = rows(engine(workspace, "results", "--csv").stdout)
    assert [(one["experiment"], one["task"], one["metric"], one["value"], one["low"]) for one in found] == [
        (name, task, metric, str(value), low)
        for name, values in VALUES.items()
        for task, own in zip(("a", "b"), values, strict=True)
        for metric, value, low in (("exact_match", own, "0.1"), ("eos_rate", 1.0, ""))
    ]
    only = rows(engine(workspace, "results", "--csv", "--metric", "eos_rate", "specs/first.toml").stdout)
    assert [(one["experiment"], one["metric"]) for one in only] == [("first", "eos_rate")] * 2


def test_csv_of_a_metric_of_two_models_has_the_comparisons(workspace: Path):
    (one,) = rows(engine(workspace, "results", "--csv", "--metric", "win_rate").stdout)
    assert (one["experiment"], one["task"], one["compared_with"], one["value"], one["other_value"]) == (
        "first",
        "a",
        "base|x",
        "0.875",
        "0.125",
    )
    assert (one["low"], one["high"], one["p_corrected"], one["significant"]) == ("0.5", "1.0", "0.0001220703125", "true")


def test_tables_are_sorted_by_what_is_asked_for(workspace: Path):
    def order(*arguments: str) -> list[str]:
        lines = engine(workspace, "results", *arguments).stdout.splitlines()
        return [line.split()[0] for line in lines if line.split()[:1] and line.split()[0] in VALUES]

    assert order() == order("--sort", "experiment") == order("--sort", "b") == ["first", "second"]
    assert order("--sort", "a") == ["second", "first"]
    for arguments, said in (
        (("--sort", "c"), "the table of exact_match has no column 'c' to sort by"),
        (("--sort", "a", "--csv"), "--sort orders the tables"),
        (("--sort", "a", "--metric", "win_rate"), "win_rate is a value of two models"),
        (("--csv", "--markdown"), "exclude each other"),
        (("--metric", "exact_mach"), "did you mean 'exact_match'"),
    ):
        done = engine(workspace, "results", *arguments)
        assert done.returncode == 1 and said in done.stderr, done.stderr


def test_markdown_has_the_same_tables(workspace: Path):
    text = engine(workspace, "results", "--markdown", "--metric", "win_rate").stdout
    assert "### differences in win\\_rate on the same rows" in text and "| first | a | yes | base\\|x |" in text
    text = engine(workspace, "results", "--markdown").stdout
    assert "### exact\\_match on held-out rows" in text and "0.50 \\[0.10, 0.95\\]" in text


def test_json_has_values_and_comparisons(workspace: Path):
    first, second = json.loads(engine(workspace, "results", "--json").stdout)["results"]
    assert first["scores"]["a"]["exact_match"] == 0.5 and first["comparisons"][0]["other"] == "base|x" and second["comparisons"] == []


PAIRS = """\
source = { kind = "jsonl", path = "pairs.jsonl" }
layout = "preference"
split  = { test = 0.2 }"""


@pytest.fixture
def preferred(tmp_path: Path) -> Path:
    """An experiment that learned from pairs, whose evaluation says that its answers are three times as long as before."""
    for folder in ("specs", "metrics", "artifacts/evaluate-own"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "pairs.jsonl").write_text('{"prompt": "x", "chosen": "y", "rejected": "z"}\n' * 9)
    learned = 'objective = { kind = "dpo", beta = 0.5 }\n[evaluation]\ncompare = ["base"]'
    (tmp_path / "specs/sft.toml").write_text(toy({"a": PAIRS}, name="sft"))
    (tmp_path / "specs/own.toml").write_text(toy({"a": PAIRS}, name="own", base='experiment = "sft"', method='"lora"', more=learned))
    (tmp_path / "metrics/evaluate-own.json").write_text(json.dumps({"a": {"exact_match": 0.5, "length": 30.0, "rows": 40}}))
    held_out = {"accuracy": 0.9, "chosen_tokens": 9.0, "rejected_tokens": 5.0, "chosen_reward": 1.0, "rejected_reward": 0.0}
    (tmp_path / "metrics/train-own.json").write_text(json.dumps({"validation": {"a": held_out}}))
    one = {"model": "own", "task": "a", "metric": "length", "other": "base", "rows": 40, "trained_on": True, "real": True}
    one |= {"value": 30.0, "other_value": 10.0, "difference": 20.0, "low": 18.0, "high": 22.0, "p": 0.0001, "p_corrected": 0.0001}
    (tmp_path / "artifacts/evaluate-own/comparisons.json").write_text(json.dumps({"comparisons": [one], "method": {}}))
    return tmp_path


def test_answers_that_ran_away_are_told_wherever_results_are_shown(preferred: Path):
    told = "own: answers on a have become 3.0 times as long: 30.0 tokens on average, those of base 10.0"
    shown = engine(preferred, "results")
    assert f"warning: {told}\n  hint: its chosen answers are 1.8 times as long as the rejected ones" in shown.stderr
    assert "raise training.objective.beta" in shown.stderr and "warning" not in shown.stdout
    assert f"Warning: {told}. To try: " in engine(preferred, "results", "--markdown").stdout.replace("\\", "")
    (found,) = json.loads(engine(preferred, "results", "--json").stdout)["results"]
    (warned,) = found["warnings"]
    assert warned["what"] == told and "raise training.objective.beta" in warned["hint"]
