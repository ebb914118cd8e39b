"""`engine init --template`: a spec with comments for rows of a sort, which checks and builds as it is."""

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from engine.core.errors import UserError
from engine.setup.init import init
from engine.setup.samples import TEMPLATES, sample
from tests.support.commands import engine

ROOT = Path(__file__).parents[3]
LEARNED = {
    "chat": "chat.jsonl: rows of layout messages, whose answers are learned",
    "classify": "classify.jsonl: label (3 values) is learned from text",
    "summarize": "summarize.jsonl: summary is learned from text",
    "preferences": "preferences.jsonl: pairs of a chosen and a rejected answer, the chosen ones are preferred",
}
OTHERS = {
    "chat": [{"conversations": [{"from": "human", "value": f"Hi {n}"}, {"from": "gpt", "value": f"Hello {n}"}]} for n in range(20)],
    "classify": [{"review": f"a film of {n}", "note": f"seen by {n} people, all of whom left", "stars": "12345"[n % 5]} for n in range(40)],
    "summarize": [{"id": f"r{n}", "kind": "ab"[n % 2], "body": f"a long text number {n} " * 9, "tldr": f"text {n}"} for n in range(20)],
    "preferences": [{"question": f"{n}?", "prompt": f"Say {n}.", "chosen": f"{n}", "rejected": f"no {n}"} for n in range(20)],
}


def written(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize("template", TEMPLATES)
def test_a_template_writes_a_spec_with_comments_and_rows_to_replace(template: str, tmp_path: Path):
    made = init(tmp_path, template=template)
    assert made.told == (LEARNED[template], f"data/{template}.jsonl has rows as the spec reads them: put your own in their place")
    assert (tmp_path / f"data/{template}.jsonl").read_text() == sample(template) and (made.spec, made.task) == (
        "specs/first.toml",
        template,
    )
    text = (tmp_path / "specs/first.toml").read_text()
    assert text.count("#") > 8 and "{{{{" not in text
    for command in ("check", "compile"):
        done = engine(tmp_path, command)
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("template", TEMPLATES)
def test_a_template_takes_the_columns_of_the_users_rows(template: str, tmp_path: Path):
    data = written(tmp_path / "rows.jsonl", OTHERS[template])
    init(tmp_path / "own", data=data, template=template)
    done = engine(tmp_path / "own", "check")
    assert done.returncode == 0, done.stderr
    task = tomllib.loads((tmp_path / "own/specs/first.toml").read_text())["tasks"]["rows"]
    if template == "classify":
        assert task["prompts"] == ["Classify the text as one of: 1, 2, 3, 4, 5.\nreview: {{ review }}\nnote: {{ note }}\nstars:"]
    if template == "summarize":
        assert task["prompts"] == ["Summarize the text.\nbody: {{ body }}\ntldr:"]


@pytest.mark.parametrize(
    ("template", "rows", "said"),
    [
        ("chat", OTHERS["summarize"], "--template chat: their columns are id, kind, body, tldr\n.*\n.*expected: `messages`"),
        ("preferences", OTHERS["classify"], "expected: `prompt`, `chosen` and `rejected`"),
        (
            "classify",
            [{"text": f"t {n}", "answer": f"an answer of its own {n}"} for n in range(20)],
            "expected: a text, and a column of labels",
        ),
        ("sumarize", OTHERS["summarize"], "did you mean 'summarize'"),
    ],
)
def test_rows_of_another_sort_are_refused_with_the_columns_that_are_expected(template: str, rows: list[dict], said: str, tmp_path: Path):
    with pytest.raises(UserError, match=said):
        init(tmp_path / "own", data=written(tmp_path / "rows.jsonl", rows), template=template)
    assert not (tmp_path / "own").exists()


def test_rows_in_place_of_the_sample_stay_and_are_read(tmp_path: Path):
    (tmp_path / "data").mkdir()
    own = written(tmp_path / "data/classify.jsonl", OTHERS["classify"])
    before = own.read_text()
    made = init(tmp_path, template="classify")
    assert own.read_text() == before and "stars (5 values) is learned" in made.told[0]


def test_all_templates_live_in_one_workspace(tmp_path: Path):
    for template in TEMPLATES:
        init(tmp_path, template=template)
    done = engine(tmp_path, "check")
    assert done.returncode == 0 and "4 specs OK" in done.stderr, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("template", TEMPLATES)
def test_what_a_template_writes_is_previewed_and_builds(template: str, tmp_path: Path):
    init(tmp_path, template=template)
    for command in (("preview", "specs/first.toml", template), ("build",)):
        done = subprocess.run(
            [sys.executable, "-m", "engine", "--workspace", str(tmp_path), *command], cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
    assert "first" in done.stdout
