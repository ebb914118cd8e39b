"""Prompts: templates in files, system prompts, examples of the train split only, and empty fields."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from engine.core.errors import UserError
from stages.generate import HeldOut, Parameters
from stages.generate.body import Generation, run
from stages.generate.cleaning.near_duplicates import NearDuplicates
from stages.generate.cleaning.overlap import Overlap
from stages.generate.layout import Layout
from stages.generate.prompts import FewShot, TemplateFile
from stages.generate.sources.jsonl import Jsonl
from stages.generate.teachers.gold import Gold
from stages.process.job import Job
from stages.rows.jsonl import read_objects, write_rows
from stages.rows.splits import split_of

SHARES = HeldOut(validation=0.2, test=0.2, seed=0)


def parameters(**changes):
    values = {"source": Jsonl(path="x"), "prompts": ("Q: {{ text }}\nA:",), "teacher": Gold(column="answer"), "held_out": SHARES}
    return Parameters(**(values | changes))


def generate(folder, rows, inputs=None, **changes):
    write_rows(folder / "in.jsonl", rows)
    metrics = run(parameters(**changes), Job("generate-x", {"source": folder / "in.jsonl", **(inputs or {})}, folder, None, folder))
    return metrics, [row for _, row in read_objects(folder / "rows.jsonl")]


def pairs(count):
    return [{"text": f"t{n}", "answer": f"a{n}"} for n in range(count)]


def test_templates_stand_in_files_and_their_line_end_is_no_part_of_them(tmp_path):
    (tmp_path / "x.jinja").write_text("From a file: {{ text }}\n", "utf-8")
    (tmp_path / "s.jinja").write_text("You know {{ topic }}.", "utf-8")
    files = {"prompts/1": tmp_path / "x.jinja", "system": tmp_path / "s.jinja"}
    rows = [row | {"topic": "birds"} for row in pairs(40)]
    given = {"prompts": ("Here: {{ text }}", TemplateFile(file="x.jinja")), "system": TemplateFile(file="s.jinja")}
    metrics, made = generate(tmp_path, rows, files, **given)
    assert Counter(row["prompt"].split(":")[0] for row in made) == {"Here": metrics["prompts"]["0"], "From a file": metrics["prompts"]["1"]}
    assert {row["system"] for row in made} == {"You know birds."} and not any(row["prompt"].endswith("\n") for row in made)
    (tmp_path / "x.jinja").write_text("{{ txt }}", "utf-8")
    with pytest.raises(UserError, match=r"x\.jinja uses field 'txt'"):
        generate(tmp_path, rows, files, **given)
    (tmp_path / "x.jinja").write_bytes(b"\xff")
    with pytest.raises(UserError, match="not UTF-8"):
        generate(tmp_path, rows, files, **given)


def test_an_empty_system_prompt_is_none(tmp_path):
    _, (row,) = generate(tmp_path, [{"text": "t", "answer": "a", "persona": ""}], system="{{ persona or '' }}")
    assert "system" not in row


def test_an_empty_field_is_an_error_unless_something_says_otherwise(tmp_path):
    rows = [{"text": "t", "answer": "a"}, {"text": " ", "answer": "b"}]
    with pytest.raises(UserError) as caught:
        generate(tmp_path, rows)
    found = caught.value.problems[0]
    assert found.what == "field 'text' is empty in this row, and prompts[0] needs it" and found.where.line == 2
    assert '{{ text or "" }}' in found.hint and "leave_out" in found.hint
    assert generate(tmp_path, rows, empty_fields="leave_out")[0]["left_out"] == {"empty field 'text'": 1}
    assert [row["prompt"] for row in generate(tmp_path, rows, empty_fields="allow")[1]] == ["Q: t\nA:", "Q:  \nA:"]
    assert len(generate(tmp_path, rows, prompts=('Q: {{ text or "" }}',))[1]) == 2
    with pytest.raises(UserError, match="'text' is empty in this row, and system needs it"):
        generate(tmp_path, rows, prompts=("{{ answer }}",), system="{{ text }}")


def examples_of(prompt):
    """The texts of a prompt's examples, and of its question."""
    *shots, question = prompt.split("\n\n")
    assert all(shot == f"Q: t{shot.rsplit('a', 1)[1]}\nA: a{shot.rsplit('a', 1)[1]}" for shot in shots)
    return [shot.split("\n")[0].removeprefix("Q: ") for shot in shots], question.split("\n")[0].removeprefix("Q: ")


def test_examples_stand_before_the_question_and_are_of_the_train_split(tmp_path):
    _, made = generate(tmp_path, pairs(200), few_shot=FewShot(count=3, answer="answer", pool=20), answer_prefix=" ")
    group = {examples_of(row["prompt"])[1]: row["group"] for row in made}
    used = Counter()
    for row in made:
        shots, question = examples_of(row["prompt"])
        assert len(set(shots)) == 3 and question not in shots
        assert all(split_of(group[shot], SHARES) == "train" for shot in shots)
        used.update(shots)
    assert len(used) == 20 and len({split_of(row["group"], SHARES) for row in made}) == 3


@settings(max_examples=15, deadline=None)
@given(st.sets(st.integers(0, 400), min_size=60, max_size=90), st.integers(401, 500), st.randoms(use_true_random=False))
def test_order_changes_no_example_and_another_row_changes_few(tmp_path_factory, numbers, added, random):
    folder = tmp_path_factory.mktemp("few")
    few_shot = FewShot(count=2, answer="answer", pool=16)
    rows = [{"text": f"t{n}", "answer": f"a{n}"} for n in sorted(numbers)]
    before = {row["id"]: row for row in generate(folder, rows, few_shot=few_shot)[1]}
    random.shuffle(rows)
    assert {row["id"]: row for row in generate(folder, rows, few_shot=few_shot)[1]} == before
    after = {row["id"]: row for row in generate(folder, [*rows, {"text": f"t{added}", "answer": f"a{added}"}], few_shot=few_shot)[1]}
    moved = sum(after[key] != before[key] for key in before)
    assert moved <= len(before) * 0.6, "one example of the pool is exchanged at most, and rows use two of sixteen"


def test_examples_may_be_shown_to_the_teacher_alone(tmp_path):
    write_rows(tmp_path / "in.jsonl", pairs(40))
    few_shot = FewShot(count=1, answer="answer", shown_to="teacher")
    made = Generation(parameters(few_shot=few_shot), Job("generate-x", {"source": tmp_path / "in.jsonl"}, tmp_path, None, tmp_path))
    asked = [draft.prompt.count("Q:") for draft in made._questions(made.subjects.main())]
    assert set(asked) == {2}
    _, rows = generate(tmp_path, pairs(40), few_shot=few_shot)
    assert {row["prompt"].count("Q:") for row in rows} == {1}


def test_rows_of_a_fixed_test_split_are_no_examples(tmp_path):
    rows = [row | {"part": "test" if number % 2 else "train"} for number, row in enumerate(pairs(60))]
    few_shot = FewShot(count=2, answer="answer", pool=60)
    _, made = generate(tmp_path, rows, few_shot=few_shot, split_column="part", held_out=HeldOut(validation=0.0, test=0.0, seed=0))
    shots = {shot for row in made for shot in examples_of(row["prompt"].replace("A:a", "A: a"))[0]}
    assert shots and all(int(shot[1:]) % 2 == 0 for shot in shots)


def test_too_few_rows_for_the_examples_and_a_missing_answer_are_the_users_errors(tmp_path):
    with pytest.raises(UserError, match=r"few_shot\.count is 9, but outside this row's group the train split has only"):
        generate(tmp_path, pairs(6), few_shot=FewShot(count=9, answer="answer"))
    with pytest.raises(UserError, match="no column 'anwser'"):
        generate(tmp_path, pairs(6), few_shot=FewShot(count=1, answer="anwser"))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"teacher": None}, "needs a teacher, or a layout"),
        ({"teacher": None, "layout": Layout()}, "without a teacher conversations are used unchanged"),
        ({"layout": Layout(), "prompts": ("",)}, "only through a prompt"),
    ],
)
def test_what_answers_nobody_is_told_before_the_run(given, said):
    with pytest.raises(ValidationError, match=said):
        parameters(**given)


def test_a_pool_is_larger_than_what_is_shown():
    with pytest.raises(ValidationError, match="pool must be larger than count"):
        FewShot(count=4, answer="a", pool=4)


def test_columns_that_nothing_uses_change_nothing_of_a_row(tmp_path):
    rows = pairs(20)
    _, before = generate(tmp_path, rows)
    _, after = generate(tmp_path, [row | {"unused": number} for number, row in enumerate(rows)])
    assert before == after


def test_rows_that_ask_the_same_stay_together_whatever_is_answered(tmp_path):
    _, made = generate(tmp_path, [{"text": "t", "answer": "a", "x": 1}, {"text": "t", "answer": "b", "x": 2}, {"text": "u", "answer": "a"}])
    assert made[0]["group"] == made[1]["group"] != made[2]["group"] and made[0]["id"] != made[1]["id"]


def test_columns_are_carried_on(tmp_path):
    _, (row,) = generate(tmp_path, [{"text": "t", "answer": "a", "page": [1]}], carry=("page",))
    assert row["carried"] == {"page": [1]}
    with pytest.raises(UserError, match=r"no column 'pgae' \(carry\)"):
        generate(tmp_path, [{"text": "t", "answer": "a", "page": 1}], carry=("pgae",))


def test_cleaning_looks_at_rows_without_their_examples_and_takes_examples_too(tmp_path):
    rows = [*pairs(60), {"text": "held out words of the exam", "answer": "x"}]
    write_rows(tmp_path / "held.jsonl", [{"question": "held out words of the exam"}])
    overlap = Overlap(against=Jsonl(path="y"), shortest=3)
    everyone = FewShot(count=1, answer="answer", pool=61)
    held = {"cleaning/0/against": tmp_path / "held.jsonl"}
    metrics, made = generate(tmp_path, rows, held, few_shot=everyone, cleaning=(overlap,))
    assert metrics["left_out"] == {"overlap with the evaluation set": 1}
    assert not any("exam" in row["prompt"] for row in made)
    metrics, _ = generate(tmp_path, pairs(60), few_shot=FewShot(count=9, answer="answer", pool=10), cleaning=(NearDuplicates(of="prompt"),))
    assert metrics["left_out"] == {}, "equal examples make no duplicates of rows"
