"""`engine init --data`: rows of the user's own become a spec that checks, whatever their columns, or a clear refusal."""

import csv
import json
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from engine.core.errors import Location, UserError
from engine.setup.first_spec import spec_for
from engine.setup.init import _checks, init
from stages.rows.templates import Expression, Template, is_empty
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


def test_rows_of_each_shape_become_specs_that_check_together(tmp_path: Path):
    for shape, (rows, told) in SHAPES.items():
        data = tmp_path / f"{shape}.jsonl"
        data.write_text("".join(json.dumps(row) + "\n" for row in rows))
        made = init(tmp_path, data=data)
        assert made.spec in made.files and made.told[0].startswith(f"{shape}.jsonl: ") and told in made.told[0]
    done = engine(tmp_path, "check")
    assert done.returncode == 0 and f"{len(SHAPES)} specs OK" in done.stderr, done.stderr
    planned = engine(tmp_path, "plan")
    assert planned.returncode == 2 and "out of date" not in planned.stderr, "there is no dvc.yaml that could be"


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_tables_are_read_by_the_delimiter_that_they_have(delimiter: str, tmp_path: Path):
    with (tmp_path / "Mein Datensatz.csv").open("w", newline="") as file:
        csv.writer(file, delimiter=delimiter).writerows([["question", "answer"], ["1 + 1, say?", "2"], ["2 + 2, say?", "4"]])
    found = spec_for(tmp_path / "Mein Datensatz.csv", "data/Mein Datensatz.csv")
    source = tomllib.loads(found.text)["tasks"]["mein-datensatz"]["source"]
    assert source == {"kind": "csv", "path": "data/Mein Datensatz.csv"} | ({} if delimiter == "," else {"delimiter": delimiter})


def test_a_file_from_elsewhere_is_copied_unless_it_is_large_and_the_user_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    data = tmp_path / "rows.jsonl"
    data.write_text('{"question": "a", "answer": "b"}\n')
    made = init(tmp_path / "own", data=data)
    assert (tmp_path / "own/data/rows.jsonl").read_bytes() == data.read_bytes()
    assert any("copied to data/rows.jsonl" in sentence for sentence in made.told)
    monkeypatch.setattr("engine.setup.init.COPIED", 10)
    made = init(tmp_path / "other", data=data)
    assert not (tmp_path / "other/data").exists()
    assert any("outside of git" in sentence and str(data) in sentence for sentence in made.told)
    assert f'path = "{data}"' in (tmp_path / "other/specs/first.toml").read_text()


@pytest.mark.parametrize(
    ("name", "text", "why"),
    [
        ("rows.txt", "a", "--data must name a file of rows"),
        ("rows.jsonl", "", "has no rows"),
        ("rows.jsonl", '{"only": "one"}\n', "no two columns"),
        ("rows.jsonl", '{"?": "x", "": "y"}\n', "no two columns"),
        ("rows.jsonl", '{"ticket": "x", "lang": "en"}\n{"ticket": "y", "lang": "en"}\n', "lang has only one value, 'en'"),
        ("rows.jsonl", '{"q": "x"}\n{"q": "y"}\n{"q": "z", "a": "w"}\n', "rows.jsonl:1\n.*a is empty in 2 of 3 rows"),
        ("rows.jsonl", "{broken\n", "rows.jsonl"),
        ("folder", None, "is a folder"),
    ],
)
def test_what_cannot_be_read_is_refused_before_anything_is_written(name: str, text: str | None, why: str, tmp_path: Path):
    (tmp_path / name).mkdir() if text is None else (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=why):
        init(tmp_path / "workspace", data=tmp_path / name)
    assert not (tmp_path / "workspace").exists()


def test_specs_that_are_there_are_joined_by_another_under_names_of_its_own(tmp_path: Path):
    rows = [{"ticket": f"it broke {n} times", "team": "ab"[n % 2], "urgency": "xyz"[n % 3]} for n in range(30)]
    (tmp_path / "tickets.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    first = init(tmp_path, data=tmp_path / "tickets.jsonl")
    assert first.spec == "specs/first.toml" and "urgency (3 values) is learned from ticket, team" in first.told[0]
    assert "it could also be team (2 values): --answer team" in first.told[1]
    second = init(tmp_path, data=tmp_path / "tickets.jsonl", answer="team")
    assert second.spec == "specs/tickets-team.toml" and "team (2 values) is learned from ticket, urgency" in second.told[0]
    done = engine(tmp_path, "check")
    assert done.returncode == 0 and "2 specs OK" in done.stderr, done.stderr
    with pytest.raises(UserError, match=r"specs/tickets-team\.toml learns team from tickets\.jsonl already"):
        init(tmp_path, data=tmp_path / "tickets.jsonl", answer="team")
    with pytest.raises(UserError, match="did you mean 'team'"):
        init(tmp_path, data=tmp_path / "tickets.jsonl", answer="tema")


NAMES = [
    (("ticket", "team", "lang"), "team"),
    (("team", "ticket"), "team"),
    (("id", "ticket", "team", "priority"), "team"),
    (("ticket", "gold_answer", "team"), "gold_answer"),
    (("ticket", "answer_id", "team"), "team"),
]


@pytest.mark.parametrize(("names", "answer"), NAMES)
def test_names_and_values_say_which_column_is_the_answer(names: tuple[str, ...], answer: str, tmp_path: Path):
    values = {"ticket": "it broke {} times", "gold_answer": "try it {} times", "lang": "en", "answer_id": "a{}", "id": "{}"}
    labels = {"team": ["red", "blue"], "priority": ["low", "mid", "high"]}
    rows = [{k: labels[k][n % len(labels[k])] if k in labels else values[k].format(n) for k in names} for n in range(30)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert spec_for(tmp_path / "rows.jsonl", "rows.jsonl").answer == answer


def test_columns_whose_names_are_no_words_have_a_word_in_the_spec(tmp_path: Path):
    """As tables are called by people, with a byte order mark and a column without a name."""
    lines = ["Ticket-Nr.,Text des Kunden,Größe,Abteilung,", *(f"{n},Der Drucker zeigt E{n},{n % 5},{'ABC'[n % 3]}," for n in range(30))]
    data = tmp_path / "tickets.csv"
    data.write_text("\n".join(lines), "utf-8-sig")
    first = init(tmp_path / "own", data=data, template="classify")
    assert "Abteilung (3 values) is learned from ticket_nr" not in first.told[0]
    assert first.told[0] == "tickets.csv: Abteilung (3 values) is learned from text_des_kunden, Größe"
    assert "not in the prompt: '', which is not named by a word, ticket_nr, which is an identifier" in first.told
    assert "column 'Text des Kunden' is text_des_kunden in the spec" in first.told
    done = engine(tmp_path / "own", "check")
    assert done.returncode == 0, done.stderr
    done = engine(tmp_path / "own", "preview", "specs/first.toml", "tickets")
    assert done.returncode == 0 and "text_des_kunden: Der Drucker zeigt E0" in done.stdout, done.stdout + done.stderr
    assert spec_for(data, "rows.csv", answer="Text des Kunden").answer == "text_des_kunden"


@pytest.mark.parametrize(("column", "turns"), [("dialog", ("role", "content")), ("turns", ("from", "value"))])
def test_conversations_in_a_column_of_another_name_are_found_and_rows_without_any_left_out(
    column: str, turns: tuple[str, str], tmp_path: Path
):
    roles = ("user", "assistant") if turns[0] == "role" else ("human", "gpt")
    rows = [
        {"id": f"c{n}", "meta": {"tags": [None]}, column: [dict(zip(turns, (role, f"{n}"), strict=True)) for role in roles] * (n != 4)}
        for n in range(20)
    ]
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    for template in ("chat", None):
        first = init(tmp_path / f"own-{template}", data=data, template=template)
        assert "whose answers are learned" in first.told[0] and f"{column} is an empty list in line 5" in " ".join(first.told)
        done = engine(tmp_path / f"own-{template}", "preview", "specs/first.toml", "rows", "--rows", "20")
        assert done.returncode == 0, done.stdout + done.stderr


COLUMN = st.sampled_from(["text", "label", "answer", "id", "naïve", "a b", "if", "messages", "chosen", "rejected", "instruction", "output"])
VALUE = st.one_of(st.text(max_size=12), st.integers(), st.none(), st.lists(st.text(max_size=3), max_size=2))


@given(st.lists(st.dictionaries(COLUMN, VALUE, min_size=1, max_size=4), min_size=1, max_size=4))
def test_any_rows_give_valid_toml_or_a_refusal(tmp_path_factory: pytest.TempPathFactory, rows: list[dict]):
    _holds(tmp_path_factory, rows)


@given(
    st.lists(
        st.fixed_dictionaries(
            {"ticket": st.sampled_from(["it broke", "no ink", "why?"])}, optional={"team": st.sampled_from("ab"), "lang": st.just("en")}
        ),
        min_size=2,
        max_size=12,
    ),
    st.dictionaries(
        st.integers(0, 11), st.dictionaries(st.sampled_from(["ticket", "team"]), st.sampled_from([None, "", " \n"]), max_size=2), max_size=3
    ),
)
def test_incomplete_rows_leave_a_spec_whose_rows_are_complete_and_whose_answers_differ(
    tmp_path_factory: pytest.TempPathFactory, rows: list[dict], gaps: dict[int, dict]
):
    _holds(tmp_path_factory, [row | gaps.get(number, {}) for number, row in enumerate(rows)])


def _holds(tmp_path_factory: pytest.TempPathFactory, rows: list[dict]) -> None:
    """ROWS are refused with a reason; or most of them pass the spec's `where`, fill its prompt and have an answer, and answers differ."""
    data = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    try:
        found = spec_for(data, "rows.jsonl")
    except UserError as error:
        assert str(error.problems[0])
        return
    document = tomllib.loads(found.text)
    task = document["tasks"]["rows"]
    assert document["mixture"]["tasks"] == [found.task] == ["rows"] and found.told
    where = Location("rows.jsonl")
    rows = [{**row, **{new: row[old] for new, old in task["source"].get("columns", {}).items()}} for row in rows]
    kept = [row for row in rows if "where" not in task["source"] or Expression(task["source"]["where"], "where").value(row, where)]
    if found.answer is not None:
        prompt = Template(task["prompts"][0], "prompt")
        assert all(prompt.render(row, where) and not prompt.empty_field(row) for row in kept)
        assert all(not is_empty(row[found.answer]) for row in kept)
        assert len(rows) == 1 or len({str(row[found.answer]) for row in kept}) > 1
    if len(kept) < len(rows):
        assert f"leaves out {len(rows) - len(kept)} of {len(rows)} rows" in "".join(found.told) and "# `where` leaves out" in found.text


def test_public_rows_are_recognised(tmp_path: Path):
    files = ("gsm8k/train.jsonl", "mts_dialog/MTS-Dialog-TrainingSet.csv", "scitldr_a/train.jsonl")
    if not (found := [path for path in files if (DATA / path).exists()]):
        pytest.skip("these data sets are not on this machine")
    for path in found:
        init(tmp_path, data=Path(shutil.copy(DATA / path, tmp_path / path.replace("/", "-"))))
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
    for text in (own, new):
        assert text.index("engine plan") < text.index("engine diff"), "which reads what the plan has fetched of adapters"
    assert yaml.safe_load(new)["adapterbuild"]["after_script"], "reviewers see what changed, above all if a check fails"


@pytest.mark.parametrize(
    ("url", "packages"),
    [
        ("", "adapterbuild dvc-s3 "),
        ("s3://bucket/path", "adapterbuild dvc-s3 "),
        ("azure://container/path", "adapterbuild dvc-azure "),
        ("webdavs://example.org/path", "adapterbuild dvc-webdav "),
        ("https://example.org/path", "adapterbuild "),
        ("/mnt/remote", "adapterbuild "),
    ],
)
@pytest.mark.parametrize("ci", ["github", "gitlab"])
def test_checks_of_a_code_host_install_what_dvc_needs_for_the_remote(tmp_path: Path, url: str, packages: str, ci: str):
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc/config").write_text(f"[core]\n    remote = far\n['remote \"far\"']\n    url = {url}\n" if url else "")
    assert f"pip install {packages}--constraint requirements.lock" in _checks(tmp_path, ci)
