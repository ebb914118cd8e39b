"""Pairs of answers as tokens: one prompt, two answers; what happens to one answer happens to the other."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from engine.core.errors import UserError
from stages.chat.formats.chat import Chat
from stages.process.job import Job
from stages.rows.jsonl import write_rows
from stages.tokenize import Parameters
from stages.tokenize.body import run
from stages.tokenize.masks.assistant import Assistant
from stages.tokens.files import Tokens
from tests.stages.tokenize.conftest import EOS
from tests.stages.tokenize.templates import TEMPLATES
from tests.stages.tokenize.test_tokenize_body import any_text

ANCHOR = ("ask", "good", "bad")  # so that the train split is never empty


def tokenize(folder, files, rows, **values):
    """Counts of the train split and its tokens; ROWS are (prompt, chosen, rejected), or rows."""
    (folder / "out").mkdir(exist_ok=True)
    inputs = {**files, "train": folder / "train.jsonl", "validation": folder / "validation.jsonl"}
    given = [row if isinstance(row, dict) else dict(zip(("prompt", "completion", "rejected"), row, strict=True)) for row in rows]
    write_rows(inputs["train"], [{"id": str(number), "group": "g", **row} for number, row in enumerate(given)])
    write_rows(inputs["validation"], [])
    metrics = run(Parameters(**({"pairs": True} | values)), Job("tokenize-x", inputs, folder / "out", None, folder))
    return metrics["train"], Tokens.open(folder / "out/train.safetensors")


@given(st.lists(st.tuples(any_text, any_text, any_text), max_size=6), st.sampled_from(["drop", "truncate_prompt_left"]), st.integers(9, 40))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
def test_both_answers_of_every_pair_have_the_same_prompt_and_fit(tmp_path_factory, files, encoder, found, policy, longest):
    folder = tmp_path_factory.mktemp("pairs")
    counts, tokens = tokenize(folder, files, [ANCHOR, *found], over_length=policy, max_length=longest)
    assert counts["rows_in"] == 2 * (1 + len(found)) == counts["rows_out"] + sum(counts["left_out"].values())
    assert tokens.are_pairs and tokens.units == counts["pairs"] == len(tokens) // 2 and tokens.chosen.tolist() == [1, 0] * tokens.units
    for pair in range(tokens.units):
        (chosen, one), (rejected, other) = tokens.row(2 * pair), tokens.row(2 * pair + 1)
        assert max(len(chosen), len(rejected)) <= longest
        assert np.array_equal(chosen[one == 0], rejected[other == 0]), "the same tokens of the prompt are left of both"
        for ids, supervised in ((chosen, one), (rejected, other)):
            assert supervised.tolist() == sorted(supervised.tolist()) and supervised.sum() >= 2, "an answer with its end"
            assert ids[-1] == encoder.eos_id


def test_the_tokens_of_each_answer_are_those_of_a_row_of_its_own(tmp_path, files, encoder):
    _, tokens = tokenize(tmp_path, files, [("What? ", "yes", "no, never")])
    texts = encoder.decode([tokens.row(number)[0].tolist() for number in (0, 1)])
    assert texts == [f"What? yes{EOS}", f"What? no, never{EOS}"]


def test_an_answer_that_is_left_out_takes_the_other_with_it(tmp_path, files):
    counts, tokens = tokenize(tmp_path, files, [ANCHOR, ("ask", "good", f"bad{EOS}more")], control_tokens_in_text="control")
    assert tokens.units == 1
    assert counts["left_out"] == {"end-of-sequence token inside the completion": 1, "the other answer of its pair is left out": 1}


def test_a_pair_whose_answers_differ_in_nothing_that_the_format_writes_is_left_out(tmp_path, chat_files):
    asked, trimmed = [{"role": "user", "content": "Hello?"}], "{{ message['content'] | trim }}"
    template = (
        f"{{% for message in messages %}}<{{{{ message['role'] }}}}>{trimmed}{{{{ eos_token }}}}{{% endfor %}}"
        "{% if add_generation_prompt %}<assistant>{% endif %}"
    )
    rows = [
        {"messages": [*asked, {"role": "assistant", "content": "Hi."}], "rejected": {"role": "assistant", "content": said}}
        for said in ("Hi.\n", "No.")
    ]
    counts, tokens = tokenize(tmp_path, chat_files, rows, format=Chat(template=template))
    assert tokens.units == counts["pairs"] == 1
    assert counts["left_out"] == {"both answers of the pair are equal as the format writes them": 2}


def test_the_policies_for_long_pairs(tmp_path, files):
    long = ("a b c d e f g h", "i", "i j k l m n o p q")
    with pytest.raises(UserError, match=r"row 1 has .. tokens, more than max_length = 20") as caught:
        tokenize(tmp_path, files, [ANCHOR, long], max_length=20)
    assert caught.value.problems[0].where.line == 2
    counts, tokens = tokenize(tmp_path, files, [ANCHOR, long], max_length=20, over_length="drop")
    assert tokens.units == 1 and counts["left_out"] == {"longer than max_length": 2}
    counts, tokens = tokenize(tmp_path, files, [ANCHOR, long], max_length=20, over_length="truncate_prompt_left")
    assert tokens.units == 2 and counts["truncated"] == 2
    prompts = [tokens.row(number)[0][tokens.row(number)[1] == 0].tolist() for number in (2, 3)]
    assert prompts[0] == prompts[1] and len(tokens.row(3)[0]) == 20


@pytest.mark.parametrize("style", TEMPLATES)
def test_conversations_learn_the_last_answer_alone_in_each_style(tmp_path, chat_files, chat_encoder, style):
    messages = [{"role": ("user", "assistant")[n % 2], "content": text} for n, text in enumerate(("Hello?", "Hi.", "And?", "So it is."))]
    row = {"messages": messages, "rejected": {"role": "assistant", "content": "I do not know."}}
    for mask in ("completion", Assistant(turns="last")):
        values = {} if mask == "completion" else {"mask": mask}
        _, tokens = tokenize(tmp_path, chat_files, [row], format=Chat(template=TEMPLATES[style]), **values)
        answers = [chat_encoder.decode([tokens.row(n)[0][tokens.row(n)[1] == 1].tolist()])[0].strip() for n in (0, 1)]
        assert answers[0].startswith("So it is.") and answers[1].startswith("I do not know.")


def test_a_row_without_a_rejected_answer_is_located(tmp_path, files):
    with pytest.raises(UserError, match="row 1 has no rejected answer") as caught:
        tokenize(tmp_path, files, [ANCHOR, {"prompt": "a", "completion": "b"}])
    assert caught.value.problems[0].where.line == 2


@pytest.mark.parametrize(
    ("values", "what"),
    [
        ({"mask": Assistant()}, "only the last answer may be supervised"),
        ({"over_length": "split"}, "would cut the two answers of a pair differently"),
        ({"over_length": "truncate_completion_right"}, "would cut the two answers of a pair differently"),
        ({"boundary": "shift"}, "may encode the prompt differently"),
        ({"encoder_decoder": True}, "causal models only"),
    ],
)
def test_what_would_treat_the_two_answers_differently_is_refused(values, what):
    with pytest.raises(ValidationError, match=what):
        Parameters(pairs=True, **values)


def test_answers_that_were_judged_alone_keep_their_judgement_whatever_is_left_out_or_cut(tmp_path, files):
    given = [
        ("a", "yes", True),
        ("b", "no", False),
        ("c", "a b c d e f g h i j k l m n", True),
        ("d " * 30, "no", False),
        ("e", "\ud800", True),
    ]
    rows = [{"prompt": prompt, "completion": answer, "desirable": judged} for prompt, answer, judged in given]
    how = {"pairs": False, "judged": True, "max_length": 12}
    counts, tokens = tokenize(tmp_path, files, rows, **how, over_length="truncate_prompt_left")
    assert tokens.desirable.tolist() == [1, 0, 0] and (counts["desirable"], counts["undesirable"]) == (1, 2)
    counts, tokens = tokenize(tmp_path, files, rows, **how, over_length="drop")
    assert tokens.desirable.tolist() == [1, 0] and not tokens.are_pairs
    counts, tokens = tokenize(tmp_path, files, rows, pairs=False, max_length=12, over_length="drop")
    assert tokens.desirable is None and counts["left_out"]["undesirable answer"] == 2, "supervised training learns desirable answers"
    with pytest.raises(UserError, match="row 0 does not say whether its answer is desirable"):
        tokenize(tmp_path, files, [{"prompt": "a", "completion": "b"}], **how)
    with pytest.raises(ValidationError, match="would cut an answer that was judged as a whole"):
        tokenize(tmp_path, files, rows, **how, over_length="split")


def cut_off(row):
    return {**dict(zip(("prompt", "completion", "rejected"), row, strict=True)), "rejected_ended": False}


@pytest.mark.parametrize("policy", ["drop", "truncate_prompt_left"])
def test_a_rejected_answer_that_was_cut_off_is_compared_without_the_end_that_it_never_had(tmp_path, files, encoder, policy):
    found = ("ask " * 30 if policy == "truncate_prompt_left" else "ask", "good", "bad and")
    counts, tokens = tokenize(tmp_path, files, [ANCHOR, cut_off(found), found], over_length=policy, max_length=40)
    assert tokens.units == 3 and counts["cut_off"] == 1 and counts["completions"] == 5
    (_, chosen), (ids, rejected), (_, other), (whole, ended) = (tokens.row(number) for number in (2, 3, 4, 5))
    assert np.array_equal(ids, whole) and np.array_equal(chosen, other) and ids[-1] == encoder.eos_id
    assert rejected.tolist() == [*ended[:-1].tolist(), 0], "all of the answer, but no end"


@pytest.mark.parametrize("style", TEMPLATES)
def test_a_cut_off_answer_of_a_conversation_has_no_end_in_any_style(tmp_path, chat_files, chat_encoder, style):
    messages = [{"role": ("user", "assistant")[n % 2], "content": text} for n, text in enumerate(("Hello?", "Hi.", "And?", "So it is."))]
    row = {"messages": messages, "rejected": {"role": "assistant", "content": "I do"}, "rejected_ended": False}
    counts, tokens = tokenize(tmp_path, chat_files, [row], format=Chat(template=TEMPLATES[style]))
    ids, supervised = tokens.row(1)
    assert chat_encoder.decode([ids[supervised == 1].tolist()])[0].strip() == "I do" and counts["cut_off"] == 1


def test_rejected_ended_is_yes_or_no(tmp_path, files):
    with pytest.raises(UserError, match="rejected_ended must be true or false, got a number") as caught:
        tokenize(tmp_path, files, [ANCHOR, cut_off(ANCHOR) | {"rejected_ended": 3}])
    assert caught.value.problems[0].where.line == 2
