"""Over-long rows: every policy to the token, for chats and for encoder-decoder pairs, and nothing that is not counted."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.core.errors import UserError
from stages.chat.formats.chat import Chat
from stages.chat.formats.plain import Plain
from stages.tokenize import Parameters
from stages.tokenize.masks.assistant import Assistant
from stages.tokenize.masks.full import Full
from tests.stages.tokenize.conftest import BOS, EOS, byte_level, chatting, encoder_of, save
from tests.stages.tokenize.templates import MISTRAL
from tests.stages.tokenize.test_masks import messages, spans, tokenize

# One token for each character or special token: "?#" and an end are 3.
FORM = Plain(prompt="?{{ prompt }}:")
ROW = messages("#", "!!!", "##", "%%%%")  # ?#:!!!E ?##:%%%%E is 7 + 9 tokens


def texts(encoder, tokens):
    return [encoder.decode([tokens.row(index)[0].tolist()])[0].replace(EOS, "E") for index in range(len(tokens))]


def learned(encoder, tokens):
    return [[span.replace(EOS, "E") for span in spans(encoder, tokens, index)] for index in range(len(tokens))]


@pytest.mark.parametrize(
    ("policy", "longest", "text", "spoken", "cut"),
    [
        ("truncate_prompt_left", 16, "?#:!!!E?##:%%%%E", ["!!!E", "%%%%E"], 0),
        # The first answer is not what it was: it is context now.
        ("truncate_prompt_left", 12, "!!E?##:%%%%E", ["%%%%E"], 4),
        ("truncate_prompt_left", 13, "!!!E?##:%%%%E", ["!!!E", "%%%%E"], 3),
        ("truncate_prompt_left", 9, "?##:%%%%E", ["%%%%E"], 7),
        ("truncate_prompt_left", 5, "%%%%E", ["%%%%E"], 11),
        ("truncate_completion_right", 15, "?#:!!!E?##:%%%E", ["!!!E", "%%%E"], 1),
        ("truncate_completion_right", 13, "?#:!!!E?##:%E", ["!!!E", "%E"], 3),
        # No room for a token of the second answer: the row ends with the first.
        ("truncate_completion_right", 12, "?#:!!!E", ["!!!E"], 9),
        ("truncate_completion_right", 5, "?#:!E", ["!E"], 11),
    ],
)
def test_a_chat_that_is_cut(tmp_path, files, encoder, policy, longest, text, spoken, cut):
    values = {"format": FORM, "mask": Assistant(), "over_length": policy, "max_length": longest}
    counts, tokens = tokenize(tmp_path, files, [ROW], **values)
    assert (texts(encoder, tokens), learned(encoder, tokens)) == ([text], [spoken])
    assert (counts["truncated"], counts["truncated_tokens"]) == (int(cut > 0), cut)


def test_what_follows_the_last_answer_goes_first(tmp_path, files, encoder):
    values = {"format": FORM, "mask": Assistant(), "over_length": "truncate_prompt_left", "max_length": 7}
    counts, tokens = tokenize(tmp_path, files, [messages("#", "!!!", "####")], **values)
    assert texts(encoder, tokens) == ["?#:!!!E"] and counts["truncated_tokens"] == 6


@pytest.mark.parametrize(
    ("policy", "longest", "reason"),
    [
        ("drop", 15, "longer than max_length"),
        ("truncate_prompt_left", 4, "completion longer than max_length"),
        ("truncate_completion_right", 4, "prompt longer than max_length"),
    ],
)
def test_what_cannot_be_cut_is_left_out_with_its_tokens(tmp_path, files, policy, longest, reason):
    values = {"format": FORM, "mask": Assistant(), "over_length": policy, "max_length": longest}
    counts, _ = tokenize(tmp_path, files, [messages("", "!"), ROW], **values)
    assert counts["left_out"] == {reason: 1} and counts["left_out_tokens"] == {reason: 16}


@pytest.mark.parametrize(
    ("longest", "expected", "spoken"),
    [
        (16, ["?#:!!!E?##:%%%%E"], [["!!!E", "%%%%E"]]),
        (15, ["?#:!!!E", "?##:%%%%E"], [["!!!E"], ["%%%%E"]]),
        # The second row of the second turn begins with the token before the cut, which is learned in the first.
        (8, ["?#:!!!E", "?##:%%%%", "%E"], None),
        (6, ["?#:!!!", "!E?##:", "%%%%E"], None),
    ],
)
def test_a_chat_that_is_split(tmp_path, files, encoder, longest, expected, spoken):
    counts, tokens = tokenize(tmp_path, files, [ROW], format=FORM, mask=Assistant(), over_length="split", max_length=longest)
    if spoken is not None:
        assert texts(encoder, tokens) == expected and learned(encoder, tokens) == spoken
    # Each token is learned once, whatever the cuts, and the ends are there.
    assert "".join(text for row in learned(encoder, tokens) for text in row) == "!!!E%%%%E"
    assert counts["longest"] <= longest and counts["completions"] == 2
    assert counts["split"] == int(longest < 16) and counts["rows_out"] == len(tokens)


def test_parts_of_a_split_row_without_anything_to_learn_are_counted(tmp_path, files):
    row = messages("#" * 20, "!!")
    counts, tokens = tokenize(tmp_path, files, [row], format=FORM, mask=Assistant(), over_length="split", max_length=8)
    assert counts["left_out"] == {"nothing to learn in this part of a split row": 3} and len(tokens) == 1
    assert counts["rows_from_splits"] == 3


def test_a_long_text_is_split_without_losing_a_token(tmp_path, files, encoder):
    text = "The quick brown fox jumps over the lazy dog. " * 9
    whole, _ = tokenize(tmp_path, files, [{"prompt": "", "completion": text}], mask=Full(), max_length=10_000)
    counts, tokens = tokenize(tmp_path, files, [{"prompt": "", "completion": text}], mask=Full(), over_length="split", max_length=16)
    assert "".join(span for row in learned(encoder, tokens) for span in row) == f"{text}E"
    assert counts["supervised_tokens"] == whole["supervised_tokens"] and counts["longest"] == 16


def test_a_begin_token_survives_the_cut(tmp_path, chat_files, chat_encoder):
    values = {"format": Chat(template=MISTRAL), "mask": Assistant(), "over_length": "truncate_prompt_left", "max_length": 12}
    counts, tokens = tokenize(tmp_path, chat_files, [messages("#" * 20, "!!")], **values)
    assert counts["truncated"] == 1
    assert texts(chat_encoder, tokens)[0].startswith(BOS) and texts(chat_encoder, tokens)[0].endswith("!!E")


policies = st.sampled_from(["drop", "truncate_prompt_left", "truncate_completion_right", "split"])
turns = st.lists(st.text("#!?", max_size=9), min_size=2, max_size=8)


@given(st.lists(turns, min_size=1, max_size=4), policies, st.integers(3, 30), st.sampled_from([Assistant(), Full()]))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
def test_split_learns_every_token_once_and_cutting_never_loses_an_end(tmp_path_factory, files, encoder, found, policy, longest, mask):
    rows = [messages("", "!"), *(messages(*texts) for texts in found)]
    values = {"format": FORM, "mask": mask, "over_length": policy, "max_length": longest}
    if longest < 5:
        values["format"] = Plain()
    counts, tokens = tokenize(tmp_path_factory.mktemp("t"), files, rows, **values)
    assert counts["longest"] <= longest
    for ids, supervised in map(tokens.row, range(len(tokens))):
        if policy != "split" and mask.kind == "assistant":
            assert supervised[np.flatnonzero(supervised)[-1]] and ids[np.flatnonzero(supervised)[-1]] == encoder.eos_id
    if policy == "split" and mask.kind == "assistant":
        answers = [text for row in rows for text in [m["content"] for m in row["messages"]][1::2] if text]
        everything = "".join(span for row in learned(encoder, tokens) for span in row)
        assert everything == "".join(f"{text}E" for text in answers)


# Encoder-decoder models.


@pytest.fixture(scope="module")
def t5_files(tmp_path_factory):
    """A tokenizer that ends the encoder's input by itself, as T5's does."""
    from tokenizers import processors

    tokenizer = chatting(byte_level())
    tokenizer.post_processor = processors.TemplateProcessing(single=f"$A {EOS}", special_tokens=[(EOS, tokenizer.token_to_id(EOS))])
    return save(tokenizer, tmp_path_factory.mktemp("t5"))


PAIR = {"prompt": "????", "completion": "!!!"}


def sides(encoder, tokens, index):
    ids, source = tokens.row(index)[0].tolist(), int(tokens.source_lengths[index])
    return [encoder.decode([part])[0].replace(EOS, "E") for part in (ids[:source], ids[source:])]


def test_inputs_and_labels_of_an_encoder_decoder_model(tmp_path, t5_files):
    encoder = encoder_of(t5_files)
    counts, tokens = tokenize(tmp_path, t5_files, [PAIR, ROW | {}], format=FORM, encoder_decoder=True)
    assert sides(encoder, tokens, 0) == ["?????:E", "!!!E"] and sides(encoder, tokens, 1)[1] == "%%%%E"
    assert sides(encoder, tokens, 1)[0].startswith("?#:!!!") and sides(encoder, tokens, 1)[0].endswith("?##:E")
    for index in range(2):
        ids, supervised = tokens.row(index)
        assert supervised.tolist() == [0] * int(tokens.source_lengths[index]) + [1] * (len(ids) - int(tokens.source_lengths[index]))
    assert counts["completions"] == 2


@pytest.mark.parametrize(
    ("policy", "limits", "expected"),
    [
        ("truncate_prompt_left", (4, 4), ["???E", "!!!E"]),
        ("truncate_prompt_left", (9, 3), "completion longer than max_target_length"),
        ("truncate_completion_right", (9, 3), ["????E", "!!E"]),
        ("truncate_completion_right", (4, 4), "prompt longer than max_length"),
        ("drop", (9, 3), "longer than max_target_length"),
        ("drop", (4, 4), "longer than max_length"),
    ],
)
def test_pairs_that_are_too_long(tmp_path, t5_files, policy, limits, expected):
    values = {"over_length": policy, "max_length": limits[0], "max_target_length": limits[1], "encoder_decoder": True}
    counts, tokens = tokenize(tmp_path, t5_files, [{"prompt": "?", "completion": "!"}, PAIR], **values)
    if isinstance(expected, str):
        assert counts["left_out"] == {expected: 1}
    else:
        assert sides(encoder_of(t5_files), tokens, 1) == expected and counts["truncated_tokens"] == 1


def test_a_pair_that_is_too_long_is_named(tmp_path, t5_files):
    with pytest.raises(UserError, match="row 0 has 4 tokens, more than max_target_length = 3"):
        tokenize(tmp_path, t5_files, [PAIR], max_length=9, max_target_length=3, encoder_decoder=True)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"encoder_decoder": True, "mask": Full()}, "the mask must be completion"),
        ({"encoder_decoder": True, "over_length": "split"}, "cannot be split"),
        ({"max_target_length": 5}, "for encoder-decoder models"),
    ],
)
def test_what_no_pair_can_be_is_refused_in_the_spec(values, said):
    with pytest.raises(ValueError, match=said):
        Parameters(**values)
