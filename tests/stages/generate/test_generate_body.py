"""generate: every row is made or counted, ids are unique, and what a user can get wrong is said with its row."""

import json
import re
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.core.errors import UserError
from stages.generate import HeldOut, Parameters
from stages.generate.body import run
from stages.generate.prompts import FewShot
from stages.generate.sources.jsonl import Jsonl
from stages.generate.teachers.gold import Gold
from stages.process.job import Job
from stages.rows.jsonl import dumps, read_objects, write_rows

DATA = Path(__file__).parents[3] / "../shared/data"


def parameters(**changes):
    values = {"source": Jsonl(path="rows.jsonl"), "prompts": ("{{ text }}",), "teacher": Gold(column="answer")}
    return Parameters(**(values | changes))


def generate(folder, rows, **changes):
    """Metrics and rows of a run over ROWS."""
    source, output = folder / "rows.jsonl", folder / "out"
    write_rows(source, rows)
    output.mkdir(exist_ok=True)
    metrics = run(parameters(**changes), Job("generate-x", {"source": source}, output, None, folder))
    return metrics, [row for _, row in read_objects(output / "rows.jsonl")]


def problem(folder, rows, **changes):
    with pytest.raises(UserError) as caught:
        generate(folder, rows, **changes)
    return caught.value.problems[0]


def test_a_row_gets_id_group_prompt_and_completion(tmp_path):
    metrics, rows = generate(tmp_path, [{"text": "a", "answer": "b"}], prompts=("Say {{ text }}:\n",))
    (row,) = rows
    assert list(row) == ["id", "group", "prompt", "completion"]
    assert (row["prompt"], row["completion"]) == ("Say a:\n", "b")
    assert re.fullmatch("[0-9a-f]{16}", row["id"]) and re.fullmatch("[0-9a-f]{64}", row["group"])
    assert metrics == {
        "rows_in": 1,
        "rows_out": 1,
        "left_out": {},
        "duplicates": 0,
        "prompts": {"0": 1},
        "prompt_characters": 7,
        "completion_characters": 1,
    }


any_text = st.text(st.characters(), max_size=6)
source_rows = st.lists(
    st.fixed_dictionaries({"text": any_text | st.sampled_from(["", "x"]), "answer": any_text | st.sampled_from(["", "y"]) | st.none()}),
    max_size=30,
)


@given(source_rows, st.integers(0, 3))
def test_rows_in_are_rows_out_and_rows_left_out(tmp_path_factory, rows, seed):
    folder = tmp_path_factory.mktemp("generate")
    anchor = {"text": "anchor", "answer": "anchor"}  # so that never all rows are left out
    policy = ("leave_out", "allow")[seed % 2]
    metrics, made = generate(folder, [anchor, *rows], seed=seed, prompts=("{{ text }}", "Q: {{ text }}"), empty_fields=policy)
    assert metrics["rows_in"] == 1 + len(rows) and metrics["rows_out"] == len(made)
    assert metrics["rows_in"] == len(made) + sum(metrics["left_out"].values())
    assert sum(metrics["prompts"].values()) == len(made)
    assert len({row["id"] for row in made}) == len(made)
    assert metrics["duplicates"] == len(made) - len({(row["prompt"], row["completion"]) for row in made})
    assert metrics["prompt_characters"] == sum(len(row["prompt"]) for row in made)
    assert all(row["completion"].strip() and row["prompt"] for row in made)


@given(source_rows, st.randoms(use_true_random=False))
def test_the_order_and_the_neighbours_of_a_row_change_nothing_of_it(tmp_path_factory, rows, random):
    rows = [{"text": "anchor", "answer": "anchor"}, *rows]
    folder = tmp_path_factory.mktemp("generate")
    prompts = tuple(f"{n} {{{{ text }}}}" for n in range(5))
    _, before = generate(folder, rows, prompts=prompts, empty_fields="allow")
    shuffled = [*rows, {"text": "new", "answer": "new"}]
    random.shuffle(shuffled)
    _, after = generate(folder, shuffled, prompts=prompts, empty_fields="allow")
    assert {dumps(row) for row in before} <= {dumps(row) for row in after} and len(after) == len(before) + 1


def test_repeated_rows_are_kept_counted_and_stay_in_one_group(tmp_path):
    metrics, rows = generate(tmp_path, [{"text": "a", "answer": "b"}, {"answer": "b", "text": "a"}, {"text": "a", "answer": "b"}])
    assert metrics["duplicates"] == 2 and len({row["id"] for row in rows}) == 3 and len({row["group"] for row in rows}) == 1


def test_every_prompt_is_used_and_another_seed_chooses_otherwise(tmp_path):
    source = [{"text": str(n), "answer": "x"} for n in range(300)]
    prompts = ("A {{ text }}", "B {{ text }}", "C {{ text }}")
    metrics, first = generate(tmp_path, source, prompts=prompts)
    _, second = generate(tmp_path, source, prompts=prompts, seed=1)
    assert all(60 < count < 140 for count in metrics["prompts"].values())
    assert Counter(a["prompt"] == b["prompt"] for a, b in zip(first, second, strict=True))[False] > 100
    assert [row["id"] for row in first] == [row["id"] for row in second]


def test_what_is_left_out_is_counted_by_reason(tmp_path):
    source = [
        {"text": "a", "answer": "b"},
        {"text": "a", "answer": ""},
        {"text": "a", "answer": " \n"},
        {"text": "a", "answer": None},
        {"text": "", "answer": "b"},
        {"text": "\ud800", "answer": "b"},
        {"text": "b", "answer": "\udfff"},
    ]
    metrics, rows = generate(tmp_path, source, empty_fields="leave_out")
    assert metrics["left_out"] == {"empty completion": 3, "empty field 'text'": 1, "lone surrogate": 2}
    assert [row["prompt"] for row in rows] == ["a"]
    metrics, rows = generate(tmp_path, source, prompts=("{{ text or '' }}",))
    assert metrics["left_out"] == {"empty completion": 3, "empty prompt": 1, "lone surrogate": 2}


def test_the_empty_template_means_no_prompt(tmp_path):
    _, rows = generate(tmp_path, [{"answer": "b"}], prompts=("",))
    assert rows[0]["prompt"] == ""


def test_numbers_are_answers_and_odd_characters_stay(tmp_path):
    _, rows = generate(tmp_path, [{"text": "\x00\u2028😀é", "answer": 42}, {"text": "b", "answer": 1.5}])
    assert [(row["prompt"], row["completion"]) for row in rows] == [("\x00\u2028😀é", "42"), ("b", "1.5")]


@pytest.mark.parametrize(("value", "group"), [("x", "x"), (7, "7"), ([1, "a"], '[1,"a"]'), (True, "true")])
def test_a_group_is_the_columns_value(tmp_path, value, group):
    _, rows = generate(tmp_path, [{"text": "a", "answer": "b", "page": value}], group_by="page")
    assert rows[0]["group"] == group


def _lacking(name: str, near: str) -> str:
    """The hint for a row without column NAME that has NEAR."""
    return f"did you mean '{near}'? if only some rows lack it, leave these out: where = \"{name} is defined\" in the source"


def test_a_missing_or_null_group_is_the_users_error(tmp_path):
    row = {"text": "a", "answer": "b", "page": None}
    missing = problem(tmp_path, [row], group_by="pages")
    assert "no column 'pages'" in missing.what and missing.hint == _lacking("pages", "page") and missing.where.line == 1
    assert "'page' is null" in problem(tmp_path, [row], group_by="page").what


def test_errors_name_the_row_the_column_and_the_nearest_one(tmp_path):
    rows = [{"text": "a", "answer": "b"}, {"txt": "a", "answer": "b"}]
    found = problem(tmp_path, rows)
    assert "field 'text'" in found.what and found.hint == _lacking("text", "txt")
    assert (found.where.file, found.where.line) == (str(tmp_path / "rows.jsonl"), 2)
    found = problem(tmp_path, rows, teacher=Gold(column="answers"))
    assert "no column 'answers'" in found.what and found.hint == _lacking("answers", "answer") and found.where.line == 1


@pytest.mark.parametrize("listed", [False, True])
@pytest.mark.parametrize(("value", "name"), [(["x"], "a list"), ({"text": "x"}, "an object"), (True, "true or false")])
def test_an_answer_that_is_no_text_is_the_users_error(tmp_path, value, name, listed):
    if isinstance(value, list):
        value = [value]  # a list of texts is several answers
    assert (
        f"must be text, got {name}" in problem(tmp_path, [{"text": "a", "answer": [value] if listed and value != [["x"]] else value}]).what
    )


def test_nothing_left_is_the_users_error(tmp_path):
    found = problem(tmp_path, [{"text": "a", "answer": ""}])
    assert found.what == "no rows are left to train on" and found.hint == "left out: 1 for empty completion"
    assert problem(tmp_path, []).hint == "the source has no rows"


def test_limit_takes_the_first_rows(tmp_path):
    metrics, rows = generate(tmp_path, [{"text": str(n), "answer": "x"} for n in range(9)], source=Jsonl(path="rows.jsonl", limit=4))
    assert metrics["rows_in"] == 4 and [row["prompt"] for row in rows] == ["0", "1", "2", "3"]


def test_equal_inputs_make_equal_bytes(tmp_path):
    source = [{"text": f"{n % 7} é", "answer": str(n % 3)} for n in range(50)]
    generate(tmp_path, source, prompts=("A{{ text }}", "B{{ text }}"))
    first = (tmp_path / "out/rows.jsonl").read_bytes()
    generate(tmp_path, source, prompts=("A{{ text }}", "B{{ text }}"))
    assert (tmp_path / "out/rows.jsonl").read_bytes() == first


@pytest.mark.skipif(not (DATA / "gsm8k/train.jsonl").exists(), reason="the public data sets do not lie beside the repository")
def test_a_real_file_of_json_lines(tmp_path):
    job = Job("generate-gsm8k", {"source": DATA / "gsm8k/train.jsonl"}, tmp_path, None, tmp_path)
    chosen = parameters(source=Jsonl(path="x", limit=500), prompts=("{{ question }}\n", "Solve: {{ question }}\n"))
    metrics = run(chosen, job)
    rows = [row for _, row in read_objects(tmp_path / "rows.jsonl")]
    assert metrics["rows_out"] == len(rows) == 500 and metrics["left_out"] == {} and min(metrics["prompts"].values()) > 200
    assert all("####" in row["completion"] for row in rows)


@pytest.mark.skipif(not (DATA / "instruction_induction").exists(), reason="the public data sets do not lie beside the repository")
def test_real_instruction_data(tmp_path):
    examples = json.loads((DATA / "instruction_induction/induce/antonyms.json").read_text("utf-8"))["examples"]
    source = [{"text": pair["input"], "answer": pair["output"]} for pair in examples.values()]
    metrics, rows = generate(tmp_path, source, prompts=("The opposite of {{ text }}: ",))
    assert metrics["rows_in"] == len(examples) == len(rows) + sum(metrics["left_out"].values())
    assert {row["completion"] for row in rows} <= {row["answer"] for row in source}


def test_a_list_of_right_answers_is_one_to_learn_and_several_to_compare_with(tmp_path):
    given = [["b", "c", "b"], ["b"], "b", [1, 2.5]]
    _, rows = generate(tmp_path, [{"text": f"a{n}", "answer": answer} for n, answer in enumerate(given)], answer_prefix=" ")
    assert [row["completion"] for row in rows] == [" b", " b", " b", " 1"]
    assert [row.get("references") for row in rows] == [[" b", " c"], None, None, [" 1", " 2.5"]]
    rows = [{"text": "a", "answer": []}, {"text": "b", "answer": ["x\ud800", "y"]}, {"text": "c", "answer": "d"}]
    metrics, left = generate(tmp_path, rows)
    assert metrics["left_out"] == {"empty completion": 1, "lone surrogate": 1} and len(left) == 1


@pytest.mark.parametrize("value", [["b", None], ["b", ""], [" "], ["b", {"t": 1}], ["b", ["c"]]])
def test_a_reference_that_is_no_text_is_the_users_error(tmp_path, value):
    found = problem(tmp_path, [{"text": "z", "answer": "b"}, {"text": "a", "answer": value}])
    assert f"item {len(value)} of" in found.what and found.where.line == 2 and found.hint


def test_an_example_shows_the_first_of_several_right_answers(tmp_path):
    rows = [{"text": f"q{n}", "answer": [f"a{n}", "other"]} for n in range(6)]
    held_out = HeldOut(validation=0, test=0, seed=0)
    _, found = generate(tmp_path, rows, few_shot=FewShot(count=1, answer="answer"), held_out=held_out)
    assert all(re.match(r"q\da\d\n", row["prompt"]) for row in found)
