"""Masks: what is learned, to the token, whatever the template, the tokenizer and the boundary policy."""

import re

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.core.errors import Location, UserError
from stages.chat.formats.chat import Chat
from stages.chat.formats.plain import Plain
from stages.chat.markers import Markers
from stages.chat.questions import Questions
from stages.process.job import Job
from stages.rows.jsonl import write_rows
from stages.rows.rows import parse_row
from stages.tokenize import Parameters
from stages.tokenize.body import run
from stages.tokenize.masks.assistant import Assistant
from stages.tokenize.masks.completion import Completion
from stages.tokenize.masks.delimited import Delimited
from stages.tokenize.masks.full import Full
from stages.tokens.files import Tokens
from tests.stages.tokenize.conftest import BOS, EOS, byte_level, encoder_of, save, unigram, word_piece
from tests.stages.tokenize.templates import CHATML, ENDS, TEMPLATES


def tokenize(folder, files, rows, **values):
    """Metrics of the train split and its tokens."""
    (folder / "out").mkdir(exist_ok=True)
    inputs = {**files, "train": folder / "train.jsonl", "validation": folder / "validation.jsonl"}
    write_rows(inputs["train"], [{"id": str(number), "group": "g", **row} for number, row in enumerate(rows)])
    write_rows(inputs["validation"], [])
    metrics = run(Parameters(**values), Job("tokenize-x", inputs, folder / "out", None, folder))
    return metrics["train"], Tokens.open(folder / "out/train.safetensors")


def row(found):
    return parse_row({"id": "a", "group": "a", **found}, Location("rows.jsonl", 7))


def messages(*texts, untrained=()):
    return {
        "messages": [
            {"role": ("user", "assistant")[n % 2], "content": text} | ({"train": False} if n in untrained else {})
            for n, text in enumerate(texts)
        ]
    }


def spans(encoder, tokens, index):
    """The text of each stretch of supervised tokens."""
    ids, supervised = tokens.row(index)
    edges = np.flatnonzero(np.diff(np.concatenate([[0], supervised, [0]])))
    return encoder.decode([ids[begin:end].tolist() for begin, end in zip(edges[::2], edges[1::2], strict=True)])


CHAT = messages("Hello?", "Hi.", "And?", "So it is.")


@pytest.mark.parametrize("style", TEMPLATES)
@pytest.mark.parametrize("boundary", ["apart", "shift"])
def test_assistant_turns_and_their_ends_are_learned_in_each_style(tmp_path, chat_files, chat_encoder, style, boundary):
    form = Chat(template=TEMPLATES[style])
    counts, tokens = tokenize(tmp_path, chat_files, [CHAT], format=form, mask=Assistant(), boundary=boundary)
    end = ENDS.get(style, EOS)
    assert [span.lstrip() for span in spans(chat_encoder, tokens, 0)] == [f"Hi.{end}", f"So it is.{end}"]
    assert counts["completions"] == 2 and counts["moved_boundaries"] == 0
    # Every row of a chat holds each end once where an answer ends, and twice nowhere.
    assert f"{end}{end}" not in chat_encoder.decode([tokens.row(0)[0].tolist()])[0]


@pytest.mark.parametrize(
    ("mask", "row", "learned"),
    [
        (Assistant(), CHAT, ["Hi.<|im_end|>", "So it is.<|im_end|>"]),
        (Assistant(turns="last"), CHAT, ["So it is.<|im_end|>"]),
        (Completion(), CHAT, ["So it is.<|im_end|>"]),
        (Assistant(), messages("a", "b", "c", "d", untrained={1}), ["d<|im_end|>"]),
        (Assistant(), messages("a", "b", "c", "d", untrained={3}), ["b<|im_end|>"]),
        (Assistant(), messages("a", "", "c", "d"), ["d<|im_end|>"]),
        (Assistant(), messages("a", "b", "c"), ["b<|im_end|>"]),
        (Assistant(), {"prompt": "p", "completion": "c", "system": "s"}, ["c<|im_end|>"]),
    ],
)
def test_which_turns_are_learned(tmp_path, chat_files, chat_encoder, mask, row, learned):
    _, tokens = tokenize(tmp_path, chat_files, [row], format=Chat(template=CHATML), mask=mask)
    assert spans(chat_encoder, tokens, 0) == learned


def test_the_full_mask_learns_a_whole_chat(tmp_path, chat_files, chat_encoder):
    _, tokens = tokenize(tmp_path, chat_files, [CHAT], format=Chat(template=CHATML), mask=Full())
    assert tokens.row(0)[1].all() and spans(chat_encoder, tokens, 0)[0].count("<|im_end|>") == 4


def test_turns_of_the_plain_format_end_with_the_end_of_sequence(tmp_path, chat_files, chat_encoder):
    form = Plain(prompt="Q: {{ prompt }}\nA:", between="\n")
    _, tokens = tokenize(tmp_path, chat_files, [messages("a", " b", "c", " d")], format=form, mask=Assistant())
    assert spans(chat_encoder, tokens, 0) == [f" b{EOS}", f" d{EOS}"]
    assert chat_encoder.decode([tokens.row(0)[0].tolist()]) == [f"Q: a\nA: b{EOS}\nQ: c\nA: d{EOS}"]


@pytest.mark.parametrize("row", [messages("a", "b", untrained={1}), messages("a", ""), {"prompt": "p", "completion": ""}])
def test_a_row_with_nothing_to_learn_is_dropped_or_an_error_as_the_spec_says(tmp_path, chat_files, row):
    values = {"format": Chat(template=CHATML), "mask": Assistant()}
    counts, tokens = tokenize(tmp_path, chat_files, [CHAT, row], **values)
    assert counts["left_out"] == {"nothing to learn but the end-of-sequence token": 1} and len(tokens) == 1
    assert counts["left_out_tokens"]["nothing to learn but the end-of-sequence token"] > 2
    with pytest.raises(UserError, match="row 1 has nothing to learn") as caught:
        tokenize(tmp_path, chat_files, [CHAT, row], **values, nothing_supervised="error")
    assert caught.value.problems[0].where.line == 2


def test_an_end_inside_an_answer_would_teach_to_stop(tmp_path, chat_files):
    rows = [CHAT, messages("a", "b<|im_end|>c"), messages("a", f"b{EOS}c"), messages(f"a{EOS}", "b")]
    counts, _ = tokenize(tmp_path, chat_files, rows, format=Chat(template=CHATML), mask=Assistant())
    assert counts["left_out"] == {"end-of-sequence token inside the completion": 2}


# The published method, as its article gives it: on text, then token by token.

ARTICLE = [
    "\n\n### Human: Say fox.\n\n### Assistant: fox",
    "\n\n### Human: a\n\n### Assistant: b\n\n### Human: c\n\n### Assistant: d f",
    "x y",
]


def published(encoder, text):
    bos_id = encoder.tokenizer.token_to_id(BOS)
    text = text.replace("\n\n### Human:", EOS + "\n\n### Human:").replace("\n\n### Assistant:", "\n\n### Assistant:" + BOS)
    text = text if text.endswith(EOS) else text + EOS
    while text.startswith(EOS):
        text = text[len(EOS) :]
    (ids,) = encoder.encode([text])
    labels, human = [], True
    for token in ids:
        labels.append(-100 if human else token)
        if human:
            human = token != bos_id
        elif token == encoder.eos_id:
            human = True
    return ids, labels


def test_the_delimited_mask_gives_the_published_labels(tmp_path, chat_files, chat_encoder):
    rows = [{"prompt": "", "completion": text} for text in ARTICLE]
    rows += [{"prompt": text[: text.index("Assistant:") + 10], "completion": text[text.index("Assistant:") + 10 :]} for text in ARTICLE[:2]]
    counts, tokens = tokenize(tmp_path, chat_files, rows, mask=Delimited())
    assert counts["left_out"] == {"nothing to learn: no answer is marked": 1}
    for index, text in enumerate((*ARTICLE[:2], *ARTICLE[:2])):
        ids, supervised = tokens.row(index)
        assert (ids.tolist(), np.where(supervised, ids, -100).tolist()) == published(chat_encoder, text)


def test_the_delimited_mask_needs_a_begin_token(tmp_path, files):
    with pytest.raises(UserError, match="no bos_token"):
        tokenize(tmp_path, files, [{"prompt": "", "completion": ARTICLE[0]}], mask=Delimited())


@pytest.mark.parametrize(
    "found",
    [
        {"prompt": "\n\n### Human: a\n\n### Assistant:", "completion": " b"},
        {"prompt": "\n\n### Human: a\n\n### Assistant: b\n\n### Human: c\n\n### Assistant:", "completion": " d f"},
        {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": " b"}]},
    ],
)
def test_a_model_that_learned_by_markers_is_asked_behind_its_begin_token(tmp_path, chat_files, chat_encoder, found):
    form = Plain(prompt="\n\n### Human: {{ prompt }}\n\n### Assistant:") if "messages" in found else Plain()
    _, tokens = tokenize(tmp_path, chat_files, [found], mask=Delimited(), format=form)
    asking, one = Questions(form, chat_encoder, markers=Markers()), row(found)
    (question,), (answer,) = asking.ids([one]), asking.references([one])
    learned, supervised = tokens.row(0)
    assert question[-1] == chat_encoder.tokenizer.token_to_id(BOS)
    assert [*question, *answer] == learned.tolist() and supervised[len(question) :].all()


def test_without_a_marker_before_the_answer_the_question_stays_as_it_is(chat_encoder):
    plain = row({"prompt": "Say fox:", "completion": " fox"})
    assert Questions(Plain(), chat_encoder, markers=Markers()).ids([plain]) == Questions(Plain(), chat_encoder).ids([plain])


# Boundaries, where a tokenizer would merge the end of the prompt with the beginning of the answer.

TOKENIZERS = {"byte-level": byte_level, "unigram": unigram, "word-piece": word_piece}
words = st.text(st.sampled_from("The quick fox jumps é😀\n1#"), min_size=1, max_size=12)


@pytest.fixture(scope="module", params=TOKENIZERS)
def any_tokenizer(request, tmp_path_factory):
    paths = save(TOKENIZERS[request.param](), tmp_path_factory.mktemp(request.param))
    return request.param, paths, encoder_of(paths)


def test_apart_the_answer_is_encoded_as_it_stands(tmp_path, any_tokenizer):
    name, paths, encoder = any_tokenizer
    _, tokens = tokenize(tmp_path, paths, [{"prompt": "The quick br", "completion": "own fox"}])
    ids, supervised = tokens.row(0)
    assert encoder.decode([ids[supervised == 1][:-1].tolist()], inside=True) == ["own fox"]
    whole = encoder.decode([ids[:-1].tolist()])[0]
    assert whole == ("The quick br own fox" if name == "word-piece" else "The quick brown fox")


def test_shifted_a_shared_token_is_the_prompts(tmp_path, any_tokenizer):
    _, paths, encoder = any_tokenizer
    text = "The quick brown fox jumps over the lazy dog."
    ids, _, starts = encoder.encode_with_starts([text])
    # Between the last two characters of a long token that is not the last one.
    number = int(np.argmax(np.diff(starts)[3:-3])) + 3
    cut = int(starts[number + 1]) - 1
    counts, tokens = tokenize(tmp_path, paths, [{"prompt": text[:cut], "completion": text[cut:]}], boundary="shift")
    found, supervised = tokens.row(0)
    assert found.tolist() == [*ids.tolist(), encoder.eos_id] and counts["moved_boundaries"] == 1
    assert supervised.tolist() == [0] * (number + 1) + [1] * (len(ids) - number)


@given(st.lists(st.tuples(words, words), min_size=1, max_size=4))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=20)
def test_no_character_of_a_prompt_is_learned(tmp_path_factory, any_tokenizer, found):
    name, paths, encoder = any_tokenizer
    rows = [{"prompt": prompt, "completion": completion} for prompt, completion in [("a", "fox jumps over"), *found]]
    for boundary in ("apart", "shift"):
        counts, tokens = tokenize(tmp_path_factory.mktemp("t"), paths, rows, boundary=boundary)
        assert counts["rows_in"] == counts["rows_out"] + sum(counts["left_out"].values()) and counts["completions"] == len(tokens)
        kept = [row for row in rows if counts["left_out"] == {}]
        for index, row in enumerate(kept):
            ids, supervised = tokens.row(index)
            learned = encoder.decode([ids[supervised == 1][:-1].tolist()], inside=True)[0]
            if name == "byte-level":
                assert row["completion"].encode().endswith(learned.encode()) or "\ufffd" in learned
                assert boundary == "shift" or learned == row["completion"]
            if name == "unigram" and not re.search("[é😀]|^ | $|  ", row["prompt"] + row["completion"]):
                assert row["completion"].endswith(learned) and (boundary == "shift" or learned == row["completion"])


@given(st.lists(st.lists(words, min_size=2, max_size=6), min_size=1, max_size=4), st.sampled_from(sorted(TEMPLATES)), st.integers(12, 60))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=20)
def test_invariants_of_chats_of_every_style_and_length(tmp_path_factory, chat_files, chat_encoder, found, style, longest):
    rows = [messages("a", "b"), *(messages(*texts) for texts in found)]
    end = chat_encoder.tokenizer.token_to_id(ENDS.get(style, EOS))
    for policy in ("drop", "truncate_prompt_left", "truncate_completion_right", "split"):
        values = {"format": Chat(template=TEMPLATES[style]), "mask": Assistant(), "max_length": longest, "over_length": policy}
        try:
            counts, tokens = tokenize(tmp_path_factory.mktemp("t"), chat_files, rows, **values)
        except UserError as error:
            assert "no rows left in the train split" in str(error)
            continue
        assert counts["rows_in"] + counts["rows_from_splits"] == counts["rows_out"] + sum(counts["left_out"].values())
        assert counts["longest"] <= longest
        ends = 0
        for ids, supervised in map(tokens.row, range(len(tokens))):
            assert supervised.any()
            stops = np.flatnonzero((supervised == 1) & ((ids == end) | (ids == chat_encoder.eos_id)))
            ends += len(stops)
            # What follows an end is never learned as its continuation, and no two ends follow each other.
            assert not any(supervised[stop + 1] for stop in stops if stop + 1 < len(ids))
            if policy != "split":
                edges = np.flatnonzero(np.diff(np.concatenate([[0], supervised, [0]])))[1::2]
                assert set(edges - 1) == set(stops)
        assert ends == counts["completions"]
