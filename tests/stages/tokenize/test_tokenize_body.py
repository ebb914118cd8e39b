"""tokenize: the invariants of ids and mask for whatever text comes, the policies for long rows, and honest counts."""

import json
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.core.errors import UserError
from stages.process.job import Job
from stages.rows.jsonl import read_objects, write_rows
from stages.tokenize import Parameters, body
from stages.tokenize.body import run
from stages.tokenize.masks.completion import Completion
from stages.tokenize.masks.full import Full
from stages.tokens.files import Tokens
from tests.stages.tokenize.conftest import EOS, byte_level, normalizing, save

DATA = Path(__file__).parents[3] / "../shared/data"
POLICIES = ("drop", "truncate_prompt_left", "truncate_completion_right")

nasty = ["", "\x00", "\ud800", EOS, " ", "\u2028", "👩‍👩‍👧", "e\u0301", "\ufeff", "é" * 40, "a " * 60]
any_text = st.lists(st.text(st.characters(), max_size=8) | st.sampled_from(nasty), max_size=4).map("".join)
pairs = st.lists(st.tuples(any_text, any_text), max_size=6)


def rows_of(found):
    return [{"id": f"{n:016x}", "group": str(n), "prompt": prompt, "completion": c} for n, (prompt, c) in enumerate(found)]


def tokenize(folder, files, train, validation=(), **values):
    """Metrics and token files of both splits."""
    output = folder / "out"
    output.mkdir(exist_ok=True)
    inputs = {**files, "train": folder / "train.jsonl", "validation": folder / "validation.jsonl"}
    write_rows(inputs["train"], rows_of(train))
    write_rows(inputs["validation"], rows_of(validation))
    metrics = run(Parameters(**values), Job("tokenize-x", inputs, output, None, folder))
    return metrics, Tokens.open(output / "train.safetensors"), Tokens.open(output / "validation.safetensors")


def problem(*arguments, **values):
    with pytest.raises(UserError) as caught:
        tokenize(*arguments, **values)
    return caught.value.problems[0]


def learned(encoder, tokens, index):
    """The text of a row's supervised tokens, the end token aside."""
    ids, supervised = tokens.row(index)
    return encoder.decode([ids[supervised == 1][:-1].tolist()])[0]


ANCHOR = ("a", "b")  # so that the train split is never empty


@given(pairs, st.sampled_from(POLICIES), st.integers(4, 40), st.sampled_from([Completion(), Full()]))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_invariants_of_every_row(tmp_path_factory, files, encoder, found, policy, longest, mask):
    folder = tmp_path_factory.mktemp("tokenize")
    metrics, tokens, empty = tokenize(folder, files, [ANCHOR, *found], over_length=policy, max_length=longest, mask=mask)
    counts = metrics["train"]
    assert counts["rows_in"] == 1 + len(found) == counts["rows_out"] + sum(counts["left_out"].values())
    assert counts["rows_out"] == len(tokens) and counts["tokens"] == tokens.lengths.sum() and counts["longest"] == tokens.lengths.max()
    assert counts["supervised_tokens"] == tokens.supervised_lengths.sum() and counts["round_trip_mismatch"] == 0
    for ids, supervised in map(tokens.row, range(len(tokens))):
        assert 2 <= len(ids) <= longest and len(ids) == len(supervised)
        assert ids[-1] == encoder.eos_id and supervised[-1] == 1
        assert supervised.tolist() == sorted(supervised.tolist()) and supervised.sum() >= 2
        assert mask.kind == "full" or np.count_nonzero(ids[supervised == 1] == encoder.eos_id) == 1
    assert len(empty) == 0 and metrics["validation"]["rows_in"] == 0


@given(pairs)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_what_is_learned_is_the_completion_to_the_letter(tmp_path_factory, files, encoder, found):
    fitting = [(p, c) for p, c in found if c and EOS not in c and not any("\ud800" <= x <= "\udfff" for x in p + c)]
    metrics, tokens, _ = tokenize(tmp_path_factory.mktemp("tokenize"), files, [ANCHOR, *fitting], max_length=100_000)
    assert metrics["train"]["left_out"] == {} and metrics["train"]["truncated"] == 0
    for index, (prompt, completion) in enumerate([ANCHOR, *fitting]):
        ids, supervised = tokens.row(index)
        assert learned(encoder, tokens, index) == completion
        assert encoder.decode([ids[supervised == 0].tolist()]) == [prompt]


def test_a_row_to_the_token(tmp_path, files, encoder):
    metrics, tokens, _ = tokenize(tmp_path, files, [("The fox", " jumps")])
    prompt, completion = encoder.encode(["The fox", " jumps"])
    ids, supervised = tokens.row(0)
    assert ids.tolist() == [*prompt, *completion, encoder.eos_id]
    assert supervised.tolist() == [0] * len(prompt) + [1] * (len(completion) + 1)
    assert metrics["train"] == {
        "rows_in": 1,
        "rows_out": 1,
        "left_out": {},
        "left_out_tokens": {},
        "truncated": 0,
        "truncated_tokens": 0,
        "split": 0,
        "rows_from_splits": 0,
        "round_trip_mismatch": 0,
        "moved_boundaries": 0,
        "tokens": len(ids),
        "supervised_tokens": len(completion) + 1,
        "completions": 1,
        "longest": len(ids),
    }


def test_the_end_token_is_not_doubled_and_never_inside(tmp_path, files, encoder):
    found = [("p", "answer"), ("p", f"answer{EOS}"), ("p", f"an{EOS}swer"), ("p", f"answer{EOS}{EOS}"), (f"turn{EOS}p", "answer")]
    metrics, tokens, _ = tokenize(tmp_path, files, found)
    assert metrics["train"]["left_out"] == {"end-of-sequence token inside the completion": 2}
    assert tokens.row(0)[0].tolist() == tokens.row(1)[0].tolist()
    ids, supervised = tokens.row(2)
    # In what is asked, it is text.
    assert np.count_nonzero(ids == encoder.eos_id) == 1 and np.count_nonzero(ids[supervised == 1] == encoder.eos_id) == 1
    assert metrics["train"]["control_tokens_in_text"] == {"rows": 1, "tokens": 1}
    _, tokens, _ = tokenize(tmp_path, files, found, control_tokens_in_text="control")
    assert np.count_nonzero(tokens.row(2)[0] == encoder.eos_id) == 2


def test_what_cannot_be_learned_is_left_out_and_counted(tmp_path, files):
    metrics, tokens, _ = tokenize(tmp_path, files, [("p", "c"), ("p", ""), ("p", EOS), ("\ud800", "c"), ("p", "\udc00")])
    assert metrics["train"]["left_out"] == {"lone surrogate": 2, "nothing to learn but the end-of-sequence token": 2}
    assert len(tokens) == 1


def test_the_full_mask_learns_the_prompt_too(tmp_path, files, encoder):
    _, tokens, _ = tokenize(tmp_path, files, [("The fox", " jumps")], mask=Full())
    assert tokens.row(0)[1].all() and learned(encoder, tokens, 0) == "The fox jumps"


def test_the_example_for_policies_has_the_length_it_seems_to_have(encoder):
    # One token for each of these characters, so that lengths can be counted by eye.
    assert [len(ids) for ids in encoder.encode(["#$#$#$", "!?!?!"])] == [6, 5]


@pytest.mark.parametrize(
    ("policy", "longest", "text", "truncated", "left_out"),
    [
        ("drop", 12, "#$#$#$!?!?!" + EOS, 0, {}),
        ("drop", 11, None, 0, {"longer than max_length": 1}),
        ("truncate_prompt_left", 12, "#$#$#$!?!?!" + EOS, 0, {}),
        ("truncate_prompt_left", 11, "$#$#$!?!?!" + EOS, 1, {}),
        ("truncate_prompt_left", 7, "$!?!?!" + EOS, 1, {}),
        ("truncate_prompt_left", 6, "!?!?!" + EOS, 1, {}),
        ("truncate_prompt_left", 5, None, 0, {"completion longer than max_length": 1}),
        ("truncate_completion_right", 11, "#$#$#$!?!?" + EOS, 1, {}),
        ("truncate_completion_right", 8, "#$#$#$!" + EOS, 1, {}),
        ("truncate_completion_right", 7, None, 0, {"prompt longer than max_length": 1}),
    ],
)
def test_policies_for_long_rows(tmp_path, files, encoder, policy, longest, text, truncated, left_out):
    found = [("a", "b"), ("#$#$#$", "!?!?!")]
    metrics, tokens, _ = tokenize(tmp_path, files, found, over_length=policy, max_length=longest)
    counts = metrics["train"]
    assert (counts["truncated"], counts["left_out"]) == (truncated, left_out)
    assert encoder.decode([tokens.row(i)[0].tolist() for i in range(1, len(tokens))]) == ([] if text is None else [text])
    assert all(tokens.row(i)[1][-1] for i in range(len(tokens)))


def test_a_long_row_fails_by_default_and_is_named(tmp_path, files):
    found = problem(tmp_path, files, [("a", "b"), ("#$#$#$", "!?!?!")], max_length=11)
    assert found.what == "row 0000000000000001 has 12 tokens, more than max_length = 11"
    assert (found.where.file, found.where.line) == (str(tmp_path / "train.jsonl"), 2) and '"truncate_prompt_left"' in found.hint


def test_a_completion_cut_inside_a_character_is_no_mismatch(tmp_path, files):
    for longest in range(3, 9):
        metrics, _, _ = tokenize(tmp_path, files, [("", "漢字漢字")], over_length="truncate_completion_right", max_length=longest)
        assert metrics["train"]["truncated"] == 1 and metrics["train"]["round_trip_mismatch"] == 0


def test_very_long_rows(tmp_path, files, encoder):
    text = "The quick brown fox 😀\x00 " * 20_000
    _, tokens, _ = tokenize(tmp_path, files, [(text, text)], max_length=10_000_000)
    assert learned(encoder, tokens, 0) == text


def test_a_train_split_without_rows_is_the_users_error(tmp_path, files):
    found = problem(tmp_path, files, [("#$#$#$", "!?!?!")], over_length="drop", max_length=5)
    assert "train" in found.what and found.hint == "left out: 1 for longer than max_length"


def test_a_normalizing_tokenizer_is_counted(tmp_path):
    metrics, tokens, _ = tokenize(tmp_path, save(normalizing(), tmp_path), [("the fox", "The  FOX"), ("x", "dog")])
    assert metrics["train"]["round_trip_mismatch"] == 1 and len(tokens) == 2


def test_a_byte_level_tokenizer_that_lost_bytes_is_the_users_error(tmp_path):
    paths = save(byte_level(), tmp_path)
    content = json.loads(paths["tokenizer/tokenizer.json"].read_text("utf-8"))
    del content["model"]["vocab"]["Z"]
    paths["tokenizer/tokenizer.json"].write_text(json.dumps(content), "utf-8")
    found = problem(tmp_path, paths, [("a", "b"), ("a", "a Z b")])
    assert "decode to 'a  b', but its completion is 'a Z b'" in found.what and found.where.line == 2


@pytest.mark.parametrize(("rows", "characters"), list(product((1, 3, 1000), (1, 30, 10**6))))
def test_batches_change_nothing(tmp_path, files, monkeypatch, rows, characters):
    found = [("p" * (n % 5), f"answer {n}" * (n % 3 + 1)) for n in range(20)]
    tokenize(tmp_path, files, found)
    whole = (tmp_path / "out/train.safetensors").read_bytes()
    monkeypatch.setattr(body, "_BATCH_ROWS", rows)
    monkeypatch.setattr(body, "_BATCH_CHARACTERS", characters)
    metrics, _, _ = tokenize(tmp_path, files, found)
    assert (tmp_path / "out/train.safetensors").read_bytes() == whole and metrics["train"]["rows_in"] == 20


def test_both_splits_and_what_the_format_adds_are_written_and_nothing_else(tmp_path, files):
    metrics, _, validation = tokenize(tmp_path, files, [("a", "b")], [("c", "d"), ("e", "f")])
    assert len(validation) == metrics["validation"]["rows_out"] == 2
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["format.json", "train.safetensors", "validation.safetensors"]


@pytest.mark.skipif(not (DATA / "gsm8k/train.jsonl").exists(), reason="the public data sets do not lie beside the repository")
def test_real_rows(tmp_path, files, encoder):
    rows = [row for _, row in read_objects(DATA / "gsm8k/train.jsonl")][:300]
    metrics, tokens, _ = tokenize(tmp_path, files, [(row["question"] + "\n", row["answer"]) for row in rows], max_length=4096)
    assert metrics["train"]["rows_out"] == 300 and metrics["train"]["truncated"] == 0
    assert [learned(encoder, tokens, index) for index in range(300)] == [row["answer"] for row in rows]
