"""`engine init --data`: rows of the user's own become a spec that checks, whatever their columns, or a clear refusal."""

import csv
import json
import subprocess
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.core.errors import UserError
from engine.setup.first_spec import spec_for
from engine.setup.init import init
from tests.support.commands import engine

ROOT = Path(__file__).parents[3]
DATA = ROOT.parent / "shared/data"
MESSAGES = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
SHAPES = {
    "labels": (
        [{"id": f"r{n}", "review": f"a film {n}", "label": ["good", "bad"][n % 2]} for n in range(9)],
        "label (2 values) is learned from review",
    ),
    "summaries": ([{"text": f"a long text number {n}", "summary": f"text {n}"} for n in range(9)], "summary is learned from text"),
    "unusual names": (
        [{"frage": f"was {n}?", "antwort": f"das {n} und mehr als dreissig Zeichen {n}"} for n in range(30)],
        "antwort is learned from frage",
    ),
    "messages": ([{"messages": MESSAGES}] * 3, "rows of layout messages"),
    "instructions": ([{"instruction": "Say it", "input": "", "output": "it"}] * 3, "rows of layout instruction"),
    "prompts and completions": ([{"prompt": "Say it", "completion": "it"}] * 3, "rows of layout prompt_completion"),
    "pairs": ([{"prompt": "Say it", "chosen": "it", "rejected": "no"}] * 3, "pairs of a chosen and a rejected answer"),
    "texts": ([{"text": "Once upon a time"}] * 3, "texts, all of which are learned"),
}


@pytest.mark.parametrize(("rows", "told"), SHAPES.values(), ids=SHAPES)
def test_each_shape_of_rows_becomes_a_spec_that_checks(rows: list[dict], told: str, tmp_path: Path):
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    made, _, said = init(tmp_path, data=tmp_path / "rows.jsonl")
    assert "specs/first.toml" in made and said and said.startswith("rows.jsonl: ") and told in said
    done = engine(tmp_path, "check")
    assert done.returncode == 0 and "1 spec OK" in done.stdout + done.stderr, done.stderr


def test_other_formats_are_read_and_a_file_elsewhere_is_named_in_full(tmp_path: Path):
    with (tmp_path / "Mein Datensatz.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["question", "answer"], ["1 + 1?", "2"], ["2 + 2?", "4"]])
    init(tmp_path / "workspace", data=tmp_path / "Mein Datensatz.csv")
    spec = tomllib.loads((tmp_path / "workspace/specs/first.toml").read_text())
    assert spec["tasks"]["mein-datensatz"]["source"] == {"kind": "csv", "path": str(tmp_path / "Mein Datensatz.csv")}


@pytest.mark.parametrize(
    ("name", "text", "why"),
    [
        ("rows.txt", "a", "--data must name a file of rows"),
        ("rows.jsonl", "", "has no rows"),
        ("rows.jsonl", '{"only": "one"}\n', "no two columns"),
        ("rows.jsonl", '{"a b": "x", "c-d": "y"}\n', "no two columns"),
        ("rows.jsonl", "{broken\n", "rows.jsonl"),
    ],
)
def test_what_cannot_be_read_is_refused_before_anything_is_written(name: str, text: str, why: str, tmp_path: Path):
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=why):
        init(tmp_path / "workspace", data=tmp_path / name)
    assert not (tmp_path / "workspace").exists()


def test_specs_that_are_there_are_not_joined_by_another(tmp_path: Path):
    (tmp_path / "rows.jsonl").write_text('{"question": "a", "answer": "b"}\n')
    (tmp_path / "specs").mkdir()
    (tmp_path / "specs/own.toml").write_text("")
    with pytest.raises(UserError, match=r"there are specs already: own\.toml"):
        init(tmp_path, data=tmp_path / "rows.jsonl")


COLUMN = st.sampled_from(["text", "label", "answer", "id", "naïve", "a b", "if", "messages", "chosen", "rejected", "instruction", "output"])
VALUE = st.one_of(st.text(max_size=12), st.integers(), st.none(), st.lists(st.text(max_size=3), max_size=2))


@given(st.lists(st.dictionaries(COLUMN, VALUE, min_size=1, max_size=4), min_size=1, max_size=4))
def test_any_rows_give_valid_toml_or_a_refusal(tmp_path_factory: pytest.TempPathFactory, rows: list[dict]):
    data = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    try:
        text, name, told = spec_for(data, "rows.jsonl")
    except UserError as error:
        assert str(error.problems[0])
        return
    assert tomllib.loads(text)["mixture"]["tasks"] == [name] == ["rows"] and told


@pytest.mark.parametrize("path", ["gsm8k/train.jsonl", "mts_dialog/MTS-Dialog-TrainingSet.csv", "scitldr_a/train.jsonl"])
def test_public_rows_are_recognised(path: str, tmp_path: Path):
    if not (DATA / path).exists():
        pytest.skip(f"{path} is not on this machine")
    init(tmp_path, data=DATA / path)
    done = engine(tmp_path, "check")
    assert done.returncode == 0, done.stderr


def test_no_workspace_is_made_inside_another(tmp_path: Path):
    (tmp_path / "rows.jsonl").write_text('{"question": "a", "answer": "b"}\n')
    init(tmp_path / "workspace")
    with pytest.raises(UserError, match="is inside the workspace"):
        init(tmp_path / "workspace/specs")
    assert engine(tmp_path / "workspace/specs", "doctor").stdout.count("DVC repository") == 1
    assert not (tmp_path / "workspace/specs/.dvc").exists()


def test_a_git_repository_inside_a_workspace_can_be_one_of_its_own(tmp_path: Path):
    init(tmp_path / "workspace")
    own = tmp_path / "workspace/artifacts/own"
    subprocess.run(["git", "init", "--quiet", str(own)], check=True)
    assert engine(own, "check").returncode == 1, "the workspace above is not its"
    init(own)
    done = engine(own, "check")
    assert done.returncode == 0, done.stderr


def test_checks_of_a_code_host_name_the_lock_that_is_there(tmp_path: Path):
    (tmp_path / "own/specs").mkdir(parents=True)
    (tmp_path / "own/requirements.lock").write_text("")
    init(tmp_path / "own", ci="github")
    init(tmp_path / "new", ci="gitlab")
    own, new = (tmp_path / "own/.github/workflows/adapterbuild.yml").read_text(), (tmp_path / "new/.gitlab-ci.yml").read_text()
    assert "--constraint requirements.lock" in own and "adapterbuild.lock" not in own
    assert "--constraint adapterbuild.lock" in new and "requirements.lock" not in new
    assert new.index("engine diff") < new.index("engine check"), "reviewers see what changed, above all if a check fails"
