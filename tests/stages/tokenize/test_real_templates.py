"""The published tokenizers and templates of Qwen 3 and DeepSeek V3, which lie beside the repository."""

import json

import numpy as np
import pytest

from engine.core.errors import UserError
from stages.chat.questions import Questions
from stages.tokenize.masks.assistant import Assistant
from tests.stages.tokenize.published import REAL, SHARED
from tests.stages.tokenize.real_rows import needs_data, oasst
from tests.stages.tokenize.test_whole_messages import ASK, CALLS, RESULT, SAY, call, one, real, row, texts, tokenization

pytestmark = pytest.mark.skipif(not SHARED.exists(), reason="the tokenizers do not lie beside the repository")
TOOLS = [{"type": "function", "function": {"name": "weather", "description": "The weather.", "parameters": {"type": "object"}}}]
THOUGHT = {**SAY, "reasoning_content": "Clouds are seen."}
MORE = {"role": "user", "content": "And tomorrow?"}


@pytest.fixture(scope="module", params=REAL)
def published(request):
    return request.param, real(request.param)


@pytest.fixture(scope="module")
def qwen():
    return real("qwen3")


@needs_data
def test_conversations_are_token_for_token_those_of_transformers(published):
    from transformers import PreTrainedTokenizerFast

    name, encoder = published
    folder = SHARED / name
    config = json.loads((folder / "tokenizer_config.json").read_text("utf-8"))
    names = {key: encoder.names[key] for key in ("bos_token", "eos_token") if key in encoder.names}
    theirs = PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"), chat_template=config["chat_template"], **names)
    found = [row(*one["messages"]) for one in oasst(100)]
    step = tokenization(encoder)
    ours = []
    for ids, _, lengths, _ in step.parts(found):
        ours += [part.tolist() for part in np.split(ids, np.cumsum(lengths)[:-1])]
    expected = [theirs.apply_chat_template([dict(message) for message in one.messages])["input_ids"] for one in found]
    assert len(ours) == len(found) > 50 and sum(a != b for a, b in zip(ours, expected, strict=True)) == 0


@pytest.mark.parametrize("content", [None, ""])
def test_calls_over_several_turns_through_qwens_template(qwen, content):
    says = {**CALLS, "content": content, "reasoning_content": "I must look."}
    whole, learned = one(qwen, None, ASK, says, RESULT, THOUGHT, tools=TOOLS)
    assert learned == (
        "<think>\nI must look.\n</think>\n\n<tool_call>\n"
        '{"name": "weather", "arguments": {"city": "Oslo", "days": 2, "metric": true, "note": null, "parts": ["a", "b"]}}\n'
        "</tool_call><|im_end|><think>\nClouds are seen.\n</think>\n\nIt rains there.<|im_end|>"
    )
    assert "<tool_response>\n21 degrees\n</tool_response>" in whole


def test_what_qwens_template_rewrites_is_refused_with_the_way_out(qwen):
    with pytest.raises(UserError) as caught:
        one(qwen, None, ASK, THOUGHT, MORE, THOUGHT)
    assert "reasoning" in caught.value.problems[0].what and 'unroll = "auto"' in caught.value.problems[0].hint


def test_an_unrolled_conversation_is_what_the_model_sees_at_each_turn(qwen):
    found = row(ASK, THOUGHT, MORE, {**CALLS, "reasoning_content": "I must look."}, RESULT, SAY, tools=TOOLS)
    step = tokenization(qwen, mask=Assistant(unroll="auto"))
    made = texts(qwen, step, found)
    assert step.counts.metrics()["unrolled"] == {"conversations": 1, "rows": 3}
    assert [learned.startswith("<think>") for _, learned in made] == [True, True, False]
    for (whole, learned), number in zip(made, (1, 3, 5), strict=True):
        # Asked at that point, the model is given just what stands before the learned part.
        (asked,) = Questions(tokenization(qwen).parameters.format, qwen).ids([row(*found.messages[: number + 1], tools=TOOLS)])
        (given,) = qwen.decode([asked])
        assert whole.startswith(given + learned) and whole[len(given + learned) :] == "\n"
    assert "Clouds are seen." not in made[2][0]


def test_unrolling_leaves_alone_what_the_template_does_not_rewrite(qwen):
    step = tokenization(qwen, mask=Assistant(unroll="auto"))
    assert len(texts(qwen, step, row(ASK, {**CALLS, "reasoning_content": "I must look."}, RESULT, THOUGHT, tools=TOOLS))) == 1
    assert "unrolled" not in step.counts.metrics()
    always = tokenization(qwen, mask=Assistant(unroll=True))
    assert len(texts(qwen, always, row(ASK, SAY, MORE, {**SAY, "train": False}, MORE, SAY))) == 2
    last = tokenization(qwen, mask=Assistant(unroll=True, turns="last"))
    assert len(texts(qwen, last, row(ASK, THOUGHT, MORE, SAY))) == 1


@pytest.mark.parametrize("inline", [False, True])
def test_reasoning_is_learned_masked_or_left_out(qwen, inline):
    says = {**SAY, "content": "<think>\nClouds are seen.\n</think>\n\nIt rains there."} if inline else THOUGHT
    masked = tokenization(qwen, mask=Assistant(reasoning="mask"))
    ((whole, learned),) = texts(qwen, masked, row(ASK, says))
    assert "Clouds are seen." in whole and learned == "\n</think>\n\nIt rains there.<|im_end|>"
    assert masked.counts.metrics()["reasoning"] == {"masked": 1}
    stripped = tokenization(qwen, mask=Assistant(reasoning="strip"))
    ((whole, learned),) = texts(qwen, stripped, row(ASK, says))
    assert "Clouds" not in whole and learned == "It rains there.<|im_end|>" and stripped.counts.metrics()["reasoning"] == {"stripped": 1}


def test_deepseeks_template_takes_calls_as_text_beside_a_null(published):
    name, encoder = published
    if name != "deepseek_v3":
        pytest.skip("of DeepSeek alone")
    _, learned = one(encoder, None, ASK, CALLS, RESULT, SAY)
    assert '"metric": true' in learned and "weather" in learned and "It rains there." in learned
    step = tokenization(encoder, unrendered="drop")
    assert not texts(encoder, step, row(ASK, {**SAY, "tool_calls": [call()]}, RESULT, SAY))
    assert step.counts.left_out == {"not rendered: tool calls": 1}


@pytest.mark.parametrize(
    ("name", "token"),
    [
        ("qwen3", "<|im_end|>"),
        ("qwen3", "<|im_start|>"),
        ("qwen3", "<|endoftext|>"),
        ("deepseek_v3", "<｜User｜>"),
        ("deepseek_v3", "<｜Assistant｜>"),
        ("deepseek_v3", "<｜end▁of▁sentence｜>"),
        ("deepseek_v3", "<｜tool▁outputs▁end｜>"),
    ],
)
def test_control_tokens_in_what_users_say_are_text(name, token):
    encoder = real(name)
    found = row({"role": "user", "content": f"What is {token} for?"}, SAY)
    number = encoder.tokenizer.token_to_id(token)

    def count(step):
        return sum(int((ids == number).sum()) for ids, *_ in step.parts([found]))

    plain = count(tokenization(encoder, control_tokens_in_text="control"))
    step = tokenization(encoder)
    assert count(step) == plain - 1
    assert step.counts.metrics()["control_tokens_in_text"] == {"rows": 1, "tokens": 1}
    ((whole, _),) = texts(encoder, tokenization(encoder), found)
    assert f"What is {token} for?" in whole
    (asked,) = Questions(tokenization(encoder).parameters.format, encoder).ids([found])
    assert np.array_equal(asked, next(ids for ids, *_ in tokenization(encoder).parts([found]))[: len(asked)])


def test_what_a_template_uses_inside_messages_stays_what_it_is(qwen):
    """Qwen's template takes a user's message in these tags for what a tool said: they are no control tokens there."""
    found = row({"role": "system", "content": "Call in <tool_call></tool_call>."}, ASK, SAY)
    step = tokenization(qwen)
    ids = np.concatenate([ids for ids, *_ in step.parts([found])])
    assert (ids == qwen.tokenizer.token_to_id("<tool_call>")).sum() == 1 and "control_tokens_in_text" not in step.counts.metrics()
