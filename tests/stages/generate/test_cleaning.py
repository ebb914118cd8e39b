"""Cleaning: each rule takes what it says, counts it, keeps examples, and forgets nothing between rows."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from engine.core.errors import UserError
from stages.generate import Parameters
from stages.generate.body import run
from stages.generate.cleaning.characters import Characters
from stages.generate.cleaning.duplicates import Duplicates
from stages.generate.cleaning.length import Length
from stages.generate.cleaning.near_duplicates import NearDuplicates
from stages.generate.cleaning.overlap import Overlap
from stages.generate.cleaning.rule import Texts
from stages.generate.cleaning.script import Script
from stages.generate.sources.jsonl import Jsonl
from stages.generate.teachers.gold import Gold
from stages.process.job import Job
from stages.rows.jsonl import read_objects, write_rows

DATA = Path(__file__).parents[3] / "../shared/data"


def reasons(rule, *texts):
    check = rule.check(lambda field: ())
    return [check(text) for text in texts]


def generate(folder, rows, *rules, **inputs):
    """Metrics and prompts of the rows that stay."""
    write_rows(folder / "in.jsonl", rows)
    parameters = Parameters(source=Jsonl(path="x"), prompts=("{{ text }}",), teacher=Gold(column="answer"), cleaning=rules)
    metrics = run(parameters, Job("generate-x", {"source": folder / "in.jsonl", **inputs}, folder, None, folder))
    assert metrics["rows_in"] == metrics["rows_out"] + sum(metrics["left_out"].values()) == len(rows)
    return metrics, [row["prompt"] for _, row in read_objects(folder / "rows.jsonl")]


def test_of_equal_texts_the_first_stays():
    assert reasons(Duplicates(), "a", "b", "a", "A", "a ") == [None, None, "duplicate", None, None]
    loose = Duplicates(ignore_case_and_punctuation=True)
    assert reasons(loose, "A b.", "a, B!", "a c", "\ud800") == [None, "duplicate", None, None]


def test_nearly_equal_texts_are_found_and_others_are_not():
    words = [f"word{n}" for n in range(60)]
    near = [*words[:30], "another", *words[31:]]
    texts = [" ".join(words), " ".join(near), " ".join(reversed(words)), " ".join(words).upper() + "!", "short", "short.", ""]
    assert reasons(NearDuplicates(), *texts) == [None, "near-duplicate", None, "near-duplicate", None, "near-duplicate", None]
    assert reasons(NearDuplicates(threshold=0.9, ngram=5), *texts)[1] is None


@pytest.mark.parametrize("threshold", [0.1, 0.9])
@pytest.mark.parametrize("permutations", [64, 1024])
def test_the_bounds_of_its_numbers_work(threshold, permutations):
    assert reasons(NearDuplicates(threshold=threshold, permutations=permutations), "a b c d", "a b c d", "x") == [
        None,
        "near-duplicate",
        None,
    ]


def jaccard(one, other, ngram):
    grams = [{" ".join(text.split()[i : i + ngram]) for i in range(len(text.split()) - ngram + 1)} for text in (one, other)]
    return len(grams[0] & grams[1]) / len(grams[0] | grams[1])


@settings(max_examples=20, deadline=None)
@given(st.lists(st.sampled_from("abcdefgh"), min_size=12, max_size=30), st.integers(0, 29), st.integers(0, 5))
def test_the_estimate_is_near_the_true_index(letters, at, seed):
    """By 256 permutations the standard error is at most 1/32: what is 0.25 away from the threshold is told right."""
    one, other = " ".join(letters), " ".join([*letters[:at], "x", *letters[at + 1 :]])
    index = jaccard(one, other, 2)
    found = reasons(NearDuplicates(ngram=2, permutations=256, threshold=0.5, seed=seed), one, other)[1]
    assert abs(index - 0.5) < 0.25 or (found is not None) == (index > 0.5)


def test_signatures_are_the_same_in_every_process():
    from datasketch import MinHash

    signature = MinHash(num_perm=16, seed=3)
    signature.update_batch([b"one", b"two"])
    assert [int(value) for value in signature.hashvalues[:3]] == SIGNATURE


SIGNATURE = [900007537, 3349150703, 2219052534]


def test_lengths_are_bounded():
    rule = Length(min_characters=3, max_words=2)
    assert reasons(rule, "ab", "abc", "a b", "a b c") == ["fewer than 3 characters", None, None, "more than 2 words"]
    with pytest.raises(ValidationError, match="at least one bound"):
        Length()


def test_characters_are_forbidden_or_must_be_letters():
    assert reasons(Characters(forbidden="\ufffd<"), "fine", "bro\ufffdken", "<b>") == [None, "character '�'", "character '<'"]
    assert reasons(Characters(min_letters=0.5), "abc 12", "12345 a", "  ") == [None, "fewer than 0.5 letters", "fewer than 0.5 letters"]
    with pytest.raises(ValidationError, match="forbidden or min_letters"):
        Characters()


@pytest.mark.parametrize(
    ("text", "scripts"),
    [
        ("Größe naïve", "latin"),
        ("Привет, мир", "cyrillic"),
        ("中文字符", "han"),
        ("ひらがな", "hiragana"),
        ("한국어", "hangul"),
        ("العربية", "arabic"),
        ("123 !?", "latin greek cyrillic han"),
    ],
)
def test_the_script_is_told(text, scripts):
    for name in ("latin", "greek", "cyrillic", "han", "hiragana", "hangul", "arabic"):
        assert (reasons(Script(scripts=(name,)), text)[0] is None) == (name in scripts.split() or text == "123 !?")


def test_a_few_foreign_letters_are_allowed():
    assert reasons(Script(scripts=("latin",)), "the angle α of the plane is given", "α β γ") == [None, "not in latin script"]


RUN = "one two three four five six seven eight nine ten eleven twelve thirteen"
EIGHT = "Eight words make a text long enough here"


def test_rows_that_share_thirteen_words_with_the_held_out_set_are_left_out(tmp_path):
    write_rows(
        tmp_path / "held.jsonl",
        [{"question": f"Start: {RUN.upper()}!", "answer": "yes", "nested": [EIGHT.lower()]}],
    )
    rows = [
        {"text": f"before {RUN.replace(' ', ', ')} after", "answer": "x"},
        {"text": RUN.rsplit(" ", 1)[0] + " fourteen", "answer": "x"},
        {"text": f"{EIGHT}.", "answer": "x"},
        {"text": "yes", "answer": "yes"},
    ]
    rule, held = Overlap(against=Jsonl(path="y")), {"cleaning/0/against": tmp_path / "held.jsonl"}
    metrics, stay = generate(tmp_path, rows, rule, **held)
    assert stay == [rows[1]["text"], "yes"] and metrics["left_out"] == {"overlap with the evaluation set": 2}
    chosen = Overlap(against=Jsonl(path="y"), texts=("question",))
    assert len(generate(tmp_path, rows, chosen, **held)[1]) == 3
    with pytest.raises(UserError, match="no column 'qestion'"):
        generate(tmp_path, rows, Overlap(against=Jsonl(path="y"), texts=("qestion",)), **held)
    with pytest.raises(UserError, match="no text of at least 8 words"):
        generate(tmp_path, rows, Overlap(against=Jsonl(path="y"), texts=("answer",)), **held)


def test_rules_go_in_order_those_about_prompts_first_and_each_counts(tmp_path):
    rows = [
        {"text": "a b c", "answer": "x"},
        {"text": "a", "answer": "y"},
        {"text": "a b c", "answer": "z"},
        {"text": "d e f", "answer": "x"},
    ]
    rules = Duplicates(of="completion"), Length(of="prompt", min_words=2), Duplicates(of="prompt")
    metrics, stay = generate(tmp_path, rows, *rules)
    assert stay == ["a b c"]
    counted = [(rule["kind"], rule["of"], rule["seen"], rule["taken"]) for rule in metrics["cleaning"]]
    assert counted == [("duplicates", "completion", 2, 1), ("length", "prompt", 4, 1), ("duplicates", "prompt", 3, 1)]
    assert metrics["left_out"] == {"duplicate": 2, "fewer than 2 words": 1}
    (example,) = metrics["cleaning"][1]["examples"]
    assert (example["reason"], example["text"]) == ("fewer than 2 words", "a") and len(example["id"]) == 16


def test_only_a_few_examples_are_kept_and_none_is_long(tmp_path):
    rows = [{"text": "first", "answer": "x"}, *({"text": "x" * 1000, "answer": f"{n}"} for n in range(9))]
    metrics, _ = generate(tmp_path, rows, Length(of="prompt", max_characters=10))
    assert metrics["cleaning"][0]["taken"] == 9 and len(metrics["cleaning"][0]["examples"]) == 3
    assert all(len(example["text"]) < 200 for example in metrics["cleaning"][0]["examples"])


def test_the_three_texts_of_a_row():
    texts = Texts("p", "")
    assert (texts.of("prompt"), texts.of("completion"), texts.of("row")) == ("p", "", "p\n")


@pytest.mark.skipif(not (DATA / "gsm8k").exists(), reason="the public data sets do not lie beside the repository")
def test_a_question_of_gsm8k_s_test_split_is_found_among_those_of_train(tmp_path):
    """A few of train share thirteen words with test all the same."""
    test, train = ([row for _, row in read_objects(DATA / f"gsm8k/{name}.jsonl")] for name in ("test", "train"))
    rows = [{"text": row["question"], "answer": row["answer"]} for row in [*train[:300], test[5]]]
    rule = Overlap(against=Jsonl(path="y"), texts=("question",), of="prompt")
    metrics, stay = generate(tmp_path, rows, rule, **{"cleaning/0/against": DATA / "gsm8k/test.jsonl"})
    assert 1 <= metrics["left_out"]["overlap with the evaluation set"] < 6 and test[5]["question"] not in stay
