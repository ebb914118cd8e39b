"""Replies that mix whatever endpoints do: no row from an answer that is not whole, none that is whole lost or paid twice, each counted."""

import json
import tempfile
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stages.generate.asking import limits
from stages.generate.question import Tally
from tests.stages.generate.chatting import KEY, ask, chat

_WHOLE = ("stop", "STOP", "end_turn", "eos", "FinishReason.STOP", "Stop_Sequence")
_ENDS = {
    "cut off": ("length", "MAX_TOKENS", "max-tokens", "model_length"),
    "refused": ("content_filter", "SAFETY", "refusal", "Recitation"),
    "tool call": ("tool_calls", "function_call", "TOOL_USE"),
    "no finish_reason": (None, ""),
}
_UNKNOWN = ("OTHER", "pause_turn", "load", "paused: stop", "完", "nonstop", "stop?length")


def contents(text):
    """TEXT in one of the forms that a content may have, among parts that are no part of the answer."""
    half, part = len(text) // 2, {"type": "text"}
    beside = st.sampled_from(
        ({"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}, {"type": "reasoning", "text": "hm"}, None)
    )
    parts = [part | {"text": text[:half]}, part | {"type": "output_text", "text": text[half:]}]
    mixed = st.lists(beside, max_size=2).map(lambda before: [*before, *parts])
    return st.just(text) | mixed | st.just([text]) | st.just(part | {"text": text})


USAGES = st.one_of(
    st.just({}),
    st.fixed_dictionaries({"usage": st.none() | st.just([]) | st.just("12")}),
    st.fixed_dictionaries(
        {
            "usage": st.dictionaries(
                st.sampled_from(("prompt_tokens", "completion_tokens", "total_tokens", "input_tokens", "details")),
                st.none() | st.integers(-5, 10**20) | st.floats() | st.text(max_size=3) | st.booleans() | st.just({"a": None}),
            )
        }
    ),
)
BESIDE = st.fixed_dictionaries(
    {},
    optional={
        "error": st.sampled_from((None, {}, "", {"code": 0, "message": ""})),
        "warning": st.just("careful"),
        "prompt_filter_results": st.just([{"content_filter_results": {"hate": {"filtered": False}}}]),
        "object": st.just("chat.completion"),
    },
)
MESSAGES = st.fixed_dictionaries(
    {},
    optional={
        "role": st.just("assistant"),
        "refusal": st.sampled_from((None, "")),
        "tool_calls": st.sampled_from((None, [])),
        "reasoning_content": st.sampled_from((None, "hm")),
        "audio": st.none(),
    },
)


@st.composite
def replies(draw, text):
    """A response that settles a question, and what must become of it: the text, or the reason why there is none."""
    becomes = draw(
        st.sampled_from((None, None, *_ENDS, "unknown", "empty answer", "refused within", "error", "called", "not text", "no message"))
    )
    message = {"content": draw(contents(text))} | draw(MESSAGES)
    choice = {"index": 0, "message": message, "finish_reason": draw(st.sampled_from(_WHOLE))}
    status, body = 200, {"choices": [choice]}
    if becomes in _ENDS:
        choice["finish_reason"] = draw(st.sampled_from(_ENDS[becomes]))
        if draw(st.booleans()) and becomes == "no finish_reason":
            del choice["finish_reason"]
    elif becomes == "unknown":
        choice["finish_reason"] = draw(st.sampled_from(_UNKNOWN))
        becomes = f"unknown finish_reason '{choice['finish_reason']}'"
    elif becomes == "empty answer":
        message["content"] = draw(st.sampled_from((None, "", " \n", [], [{"type": "text", "text": ""}])))
    elif becomes == "refused within":
        becomes = "refused"
        if draw(st.booleans()):
            message["refusal"] = "I must not"
        else:
            message["content"] = [{"type": "text", "text": text}, {"type": "refusal", "refusal": "I must not"}]
    elif becomes == "called":
        becomes = "tool call"
        message[draw(st.sampled_from(("tool_calls", "function_call")))] = [{"name": "f"}]
    elif becomes == "not text":
        message["content"] = draw(st.sampled_from(([text, {"type": "image_url"}], 7, {"answer": text}, [True])))
    elif becomes == "no message":
        becomes = "refused"
        body["choices"] = [{"finish_reason": draw(st.sampled_from(_ENDS["refused"]))} | draw(st.sampled_from(({}, {"message": None})))]
    elif becomes == "error":
        becomes, error = "refused", {"message": "no", "code": draw(st.sampled_from(("content_filter", "content_policy_violation")))}
        error |= draw(st.sampled_from(({}, {"innererror": {"code": "ResponsibleAIPolicyViolation"}})))
        status = draw(st.sampled_from((200, 400, 403, 422)))
        if status == 200 and draw(st.booleans()):
            choice |= {"error": error, "finish_reason": "error"}
        else:
            body = draw(st.sampled_from(({"error": error}, [{"error": error}], {"error": error, "choices": []})))
    if isinstance(body, dict):
        body = body | {key: value for key, value in (draw(USAGES) | draw(BESIDE)).items() if key not in body}
    return {"status": status, "body": json.dumps(body)}, becomes


@st.composite
def failures(draw, text):
    """A response after which the question is asked again, and what it is counted as."""
    whole = json.dumps({"choices": [{"message": {"content": text}, "finish_reason": "stop"}]})
    code = draw(st.sampled_from((429, 500, 503, 529, 408)))
    error = {"message": "later", "code": draw(st.sampled_from((code, str(code))))}
    broken = {"choices": [{"message": {"content": text[:2]}, "finish_reason": "error"}]}
    inside = {"choices": [{"message": {"content": text[:2]}, "finish_reason": "error", "error": error}]}
    return draw(
        st.sampled_from(
            (
                ({"status": code, "body": json.dumps({"error": {"message": "later"}})}, str(code)),
                ({"status": code, "body": "<html>"}, str(code)),
                ({"body": json.dumps({"error": error})}, str(code)),
                ({"body": json.dumps([{"error": error}])}, str(code)),
                ({"body": json.dumps(inside)}, str(code)),
                ({"body": json.dumps({"error": {"message": "later", "type": "rate_limit_error"}})}, "429"),
                ({"body": json.dumps({"error": "later"})}, "error without a known code"),
                ({"body": json.dumps(broken)}, "finish_reason error"),
                ({"body": whole[: draw(st.integers(0, len(whole) - 1))]}, "no chat completion"),
                ({"body": json.dumps({"choices": []})}, "no chat completion"),
            )
        )
    )


@st.composite
def plans(draw):
    """For each of some questions: the responses to it one after the other, what becomes of it, and what each failure is counted as."""
    made = {}
    for number in range(draw(st.integers(1, 12))):
        text = f"answer {number} " + draw(st.text(max_size=8))
        failed = draw(st.lists(failures(text), max_size=2))
        last, becomes = draw(replies(text))
        made[f"question {number}"] = (
            [step for step, _ in failed] + [last],
            text if becomes is None else becomes,
            [reason for _, reason in failed],
        )
    return made


@pytest.mark.parametrize("batch", [False, True])
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(plan=plans())
def test_each_answer_becomes_what_it_is_and_each_request_is_counted(shared, monkeypatch, batch, plan):
    monkeypatch.setenv("TEACHER_KEY", KEY)
    monkeypatch.setattr(limits, "FIRST_REST", 0.001)
    monkeypatch.setattr(limits.Circuit.__init__, "__defaults__", (0.001, 0.01))  # where many fail, it would rest for minutes
    shared.set(received=[], answered=[], seen={}, batches={}, files={}, scripted={prompt: steps for prompt, (steps, _, _) in plan.items()})
    with tempfile.TemporaryDirectory() as folder, monkeypatch.context() as here:
        here.chdir(Path(folder))
        teacher, tally, expected = (
            chat(shared, batch=batch, batch_poll=0.005, in_flight=4),
            Tally(),
            [becomes for _, becomes, _ in plan.values()],
        )
        assert ask(teacher, plan, tally=tally) == expected
        received, measured = shared.received(), tally.measured["teacher"]
        assert Counter(received) == {prompt: len(steps) for prompt, (steps, _, _) in plan.items()}, "no answer is paid for twice"
        failed = Counter(reason for _, _, reasons in plan.values() for reason in reasons)
        texts = sum(becomes.startswith("answer ") for becomes in expected)
        settled = Counter(becomes for becomes in expected if not becomes.startswith("answer ")) + Counter(answered=texts)
        assert measured["retries"] == failed and measured["outcomes"] == failed + settled
        assert sum(measured["outcomes"].values()) == measured["requests"] == len(received)
        again = Tally()
        assert ask(teacher, plan, tally=again) == expected and len(shared.received()) == len(received)
        assert again.measured["teacher"]["requests"] == 0 and again.measured["teacher"]["rows_from_cache"] == len(plan)
