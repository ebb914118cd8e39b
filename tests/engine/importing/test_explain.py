"""`engine import --explain`: what the tool learns of the rows and what the spec learns, on rows and a tokenizer that are here."""

import json
import subprocess
import sys
from pathlib import Path

from engine.cli.render_comparison import comparison
from stages.foreign.labels import Oddities
from tests.engine.importing.conftest import AXOLOTL
from tests.support import commands

ROOT = Path(__file__).parents[3]


def explain(here: Path, *arguments: str, status: int = 0) -> subprocess.CompletedProcess[str]:
    done = commands.engine(ROOT, "--workspace", str(here), "import", "--explain", *arguments)
    assert done.returncode == status, done.stderr
    return done


def test_what_the_tool_and_the_spec_learn_is_compared_row_by_row(here):
    answer = explain(here, str(here / "axolotl.yml"), str(here / "factory.yaml"), "--json", "-n", "3").stdout
    axolotl, factory = json.loads(answer)["comparisons"]
    assert axolotl["compared"] == 3 and axolotl["differences"] == {"": 3}
    for row in axolotl["rows"]:
        assert row["theirs"] == row["ours"] and row["difference"] == ""
        learned = "".join(token["text"] for token in row["ours"][0] if token["supervised"])
        assert learned.startswith(row["source"]["output"])
    assert factory["differences"]['learned only there: "⏎"'] == 2, "LLaMA-Factory learns the line break behind the end token"
    theirs, ours = (factory["counts"][side] for side in ("theirs", "ours"))
    assert theirs["cut"] == ours["cut"] == 1 and (theirs["end_not_learned"], ours["end_not_learned"]) == (1, 0)


def test_an_environment_without_the_tool_is_named(here):
    said = explain(here, str(here / "axolotl.yml"), "--with-python", sys.executable, status=1).stderr
    assert f"axolotl in {sys.executable} failed" in said and "must import axolotl" in said


def test_rows_that_are_not_here_are_asked_for(here):
    (here / "hub.yml").write_text(AXOLOTL.replace("data/pairs.json", "someone/pairs"), "utf-8")
    assert "commit" in explain(here, str(here / "hub.yml"), status=1).stderr


def test_a_comparison_is_shown_with_brackets_around_what_is_learned(capsys):
    piece = [{"id": 1, "text": "Q", "supervised": False}, {"id": 2, "text": "A", "supervised": True}]
    row = {"where": "rows.json, row 1", "theirs": [piece], "ours": "too long", "difference": "left out here (too long)"}
    counts = Oddities(rows=1, dropped=1, reasons={"too long": 1}).as_data()
    found = {"task": "a", "spec": "specs/a.toml", "tool": "llamafactory", "rows": [row], "compared": 1, "without_rules": None}
    comparison(found | {"differences": {"left out here (too long)": 1}, "counts": {"theirs": Oddities(rows=1).as_data(), "ours": counts}})
    shown = capsys.readouterr().out
    assert "LLaMA-Factory: 2 tokens, 1 learned" in shown and "Q|⟦A|⟧" in shown and "spec: 1 too long" in shown
