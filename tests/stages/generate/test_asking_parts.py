"""The parts of asking, each alone: schemas, limits, waiting, addresses, headers."""

import asyncio
import json
import re
import time
from bisect import bisect_left
from contextlib import suppress
from email.utils import formatdate
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.generate.asking import limits, reply
from stages.generate.asking.cache import Averages, answers_path
from stages.generate.asking.client import retry_after
from stages.generate.asking.faults import read_fault
from stages.generate.asking.limits import Circuit, Guess, Prices, Rate, Spending
from stages.generate.asking.reply import NOT_TEXT, Broken, End, NoCompletion, Reply, end_of, parse, whole_words
from stages.generate.asking.request import Request, opening
from stages.generate.asking.schema import Structure, Unreadable
from stages.generate.asking.wire import proxy_of

PERSON = {
    "type": "object",
    "properties": {
        "first name": {"type": "string", "pattern": "^[A-Z]"},
        "age": {"type": ["integer", "null"], "minimum": 0, "description": "in years"},
        "kind": {"enum": ["cat", "dog", None, 3]},
        "tags": {"type": "array", "items": {"$ref": "#/$defs/tag"}, "minItems": 1, "maxItems": 2},
        "either": {"anyOf": [{"type": "boolean"}, {"const": "maybe"}]},
    },
    "required": ["first name", "age"],
    "additionalProperties": False,
    "$defs": {"tag": {"type": "object", "properties": {"weight": {"type": "number", "exclusiveMaximum": 1}}, "required": ["weight"]}},
}


@pytest.mark.parametrize(
    ("more", "fault"),
    [
        ({}, None),
        ({"age": None, "kind": None, "tags": [{"weight": 0.5, "more": 1}], "either": "maybe"}, None),
        ({"kind": 3, "either": False, "tags": [{"weight": 0}, {"weight": -1}]}, None),
        ({"first name": "anna"}, "first name"),
        ({"age": -1}, "age"),
        ({"age": 1.5}, "age"),
        ({"age": True}, "age"),
        ({"age": "7"}, "age"),
        ({"kind": "bird"}, "kind"),
        ({"tags": []}, "tags"),
        ({"tags": [{"weight": 1}]}, "tags.0.weight"),
        ({"tags": [{}]}, "tags.0.weight"),
        ({"tags": [{"weight": 0}] * 3}, "tags"),
        ({"either": "perhaps"}, "either"),
        ({"other": 1}, "other"),
    ],
)
def test_a_schema_takes_what_it_allows_and_says_what_it_does_not(more, fault):
    text = json.dumps({"first name": "Anna", "age": 7} | more)
    completion, complaint = Structure(PERSON).read(text)
    assert (complaint is None and json.loads(completion) == json.loads(text)) if fault is None else fault in (complaint or "")


ANYTHING = {
    "type": "object",
    "properties": {"x": {"type": "number"}, "n": {"enum": [1, 2]}, "m": {"type": "array"}, "c": {"const": True}},
    "required": ["x"],
}


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ('{"x": 1, "m": [1e300, -0.0, null, "NaN"]}', None),
        ('{"x": NaN}', "NaN"),
        ('{"x": Infinity}', "Infinity"),
        ('{"x": -Infinity}', "Infinity"),
        ('{"x": 1e400}', "too large"),
        ('{"x": 1, "m": [{"y": NaN}]}', "NaN"),
        ('{"x": 1, "more": -1e999}', "too large"),
        ('{"x": 1, "x": 2}', "'x' stands twice"),
        ('{"x": 1, "m": [{"y": 1, "y": 1}]}', "'y' stands twice"),
        ('{"x": 1, "more": ' + "1" * 5000 + "}", "Invalid JSON"),
        ('{"x": 1, "more": ' + "[" * 5000 + "]" * 5000 + "}", "Invalid JSON"),
        ('{"x": 1, "more": "\\ud800"}', "Invalid JSON"),
        ('{"x": 1, "n": true}', "n: "),
        ('{"x": 1, "n": 1.0}', "n: "),
        ('{"x": 1, "c": 1}', "c: "),
        ('{"x": 1} and more', "Invalid JSON"),
    ],
)
def test_a_structured_answer_is_json_and_nothing_beside(text, fault):
    completion, complaint = Structure(ANYTHING).read(text)
    assert (json.loads(completion) == json.loads(text) and complaint is None) if fault is None else (not completion and fault in complaint)


def test_a_field_that_is_not_there_is_an_empty_answer():
    schema = {"type": ["object", "null"], "properties": {"a": {"type": "string"}}}
    assert [Structure(schema, "a").read(text) for text in ("null", "{}", '{"a": ""}')] == [("", None)] * 3


@given(
    st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x), max_leaves=5)
)
def test_whatever_a_model_says_a_schema_answers(value):
    completion, complaint = Structure(PERSON, "age").read(json.dumps(value))
    assert bool(complaint) != bool(completion)


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({}, "no supported type"),
        ({"type": "string", "format": "email"}, "'format'"),
        ({"type": "object", "properties": {"a": {"type": "string", "minimum": 1}}}, "a uses 'minimum'"),
        ({"type": "object", "required": ["a"]}, "requires a"),
        (
            {
                "type": "object",
                "properties": {"a": {"$ref": "#/$defs/a"}},
                "$defs": {"a": {"type": "array", "items": {"$ref": "#/$defs/a"}}},
            },
            "itself",
        ),
        ({"$ref": "#/elsewhere"}, "which is not in #/\\$defs/"),
        ({"enum": []}, "enum"),
        ({"type": "object", "additionalProperties": {"type": "string"}}, "additionalProperties"),
    ],
)
def test_a_schema_that_cannot_be_kept_is_refused(schema, words):
    with pytest.raises(Unreadable, match=words):
        Structure(schema)


@pytest.mark.parametrize(("per_window", "count"), [(20, 50), (300, 800)])
def test_a_rate_is_never_exceeded_in_any_window(monkeypatch, per_window, count):
    monkeypatch.setattr(limits, "MINUTE", 1.0)

    async def times():
        rate, found = Rate(per_window), []

        async def one():
            await rate.take()
            found.append(time.monotonic())

        await asyncio.gather(*(one() for _ in range(count)))
        return found

    found = asyncio.run(times())
    assert max(bisect_left(found, when + 1.0) - place for place, when in enumerate(found)) <= per_window


def test_corrections_are_paid_by_the_next_and_gains_are_bounded(monkeypatch):
    monkeypatch.setattr(limits, "MINUTE", 1.0)

    async def seconds(first, correction, second):
        rate = Rate(1_000)
        await rate.take(first)
        rate.correct(correction)
        begun = time.monotonic()
        await rate.take(second)
        return time.monotonic() - begun

    assert min(asyncio.run(seconds(10, 0, 1)) for _ in range(5)) < 0.05  # a busy machine may hold up one of them
    assert asyncio.run(seconds(10, 200, 1)) >= 0.19  # 200 more were used than were taken
    assert asyncio.run(seconds(10, -500, 210)) >= 0.18  # a gain of half a minute's tokens is not saved up


def test_the_guess_learns_and_keeps_to_what_a_request_allows():
    request = Request("e", {"model": "m", "messages": opening("be brief", "x" * 392), "max_tokens": 50})
    guess = Guess(Averages(0, None, None))
    assert (guess.prompt(request), guess.completion(request)) == (100, 50)
    for _ in range(200):
        guess.learn(request, Reply("", None, "stop", 200, 7))
    assert abs(guess.prompt(request) - 200) < 5 and abs(guess.completion(request) - 7) < 1
    guess.learn(request, Reply("", None, "stop", 0, 0))  # a server that tells no usage teaches nothing
    assert abs(guess.prompt(request) - 200) < 5
    assert Guess(Averages(9, 2.0, 80.0)).completion(request) == 50


def test_spending_counts_what_is_under_way():
    spending = Spending(Prices(1.0, 2.0), max_tokens=100, max_cost=1.5e-4)
    assert spending.exhausted(40, 20) is None
    spending.begin(40, 20)
    assert "max_total_tokens = 100" in (spending.exhausted(40, 20) or "")
    spending.end(40, 20, Reply("", None, None, 10, 5))
    assert spending.cost == 2e-5 and spending.exhausted(40, 20) is None
    assert "max_cost" in (spending.exhausted(30, 55) or "")


def test_an_open_circuit_lets_one_probe_through_at_a_time():
    async def story():
        circuit, sent = Circuit(failures=3, cooldown=0.05, longest=0.05), []
        for _ in range(3):
            circuit.failure()
        assert circuit.is_open

        async def one(number):
            probing = await circuit.passage()
            sent.append((number, probing))
            await asyncio.sleep(0.01)
            if number < 2:
                circuit.failure()
            else:
                circuit.success()
            if probing:
                circuit.probed()

        await asyncio.gather(*(one(number) for number in range(6)))
        return sent

    sent = asyncio.run(story())
    assert [probing for _, probing in sent] == [True, True, True, False, False, False]


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "3"}, 3),
        ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "-1"}, 0),
    ],
)
def test_retry_after(headers, seconds):
    assert retry_after(headers) == seconds


def test_retry_after_as_a_date():
    assert 8 < (retry_after({"retry-after": formatdate(time.time() + 10, usegmt=True)}) or 0) <= 10


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("", "empty"),
        (" \n", "empty"),
        ("{}", "no choices"),
        ("[]", "no object"),
        ("null", "no object"),
        ("12", "no object"),
        ('"choices"', "no object"),
        ('{"choices": []}', "no choices"),
        ('{"choices": null}', "no choices"),
        ('{"choices": [null]}', "no choices"),
        ('{"choices": ["hi"]}', "no choices"),
        ('{"choices": [{}]}', "neither message nor finish_reason"),
        ('{"choices": [{"message": "hi", "text": null}]}', "neither message nor finish_reason"),
        ('{"choices": [{"message', "not JSON"),
        ('{"choices": [{"message": {"content": "hi"}, "finish_reason": "stop"}', "not JSON"),
        ('data: {"choices": []}', "break off"),
        ("data: [DONE]", "no choices"),
        ("<html>bad gateway</html>", "bad gateway"),
        ("[" * 100_000, "not JSON"),
        (b'{"choices": [{"message": {"content": "caf\xe9"}, "finish_reason": "stop"}]}', "not JSON"),
    ],
)
def test_a_body_that_is_no_answer_is_none(body, words):
    with pytest.raises(NoCompletion, match=words):
        parse(body)


def completion(content="hi", finish_reason="stop", **message):
    return {"choices": [{"message": {"role": "assistant", "content": content} | message, "finish_reason": finish_reason}]}


def test_a_body_with_more_than_we_know_is_read():
    body = completion(new={}) | {"new": 1, "error": None, "detail": "fast"}
    body["choices"].append({"message": {}})
    assert parse(json.dumps(body)) == Reply("hi", None, "stop", None, None)
    assert parse(b"\xef\xbb\xbf" + json.dumps(body).encode()).text == "hi"
    assert parse(json.dumps(body).replace("null", "NaN")).text == "hi", "numbers of other fields are none of ours"
    assert parse(json.dumps(body | {"error": {"code": 0, "message": "success"}})).text == "hi"


@pytest.mark.parametrize(
    ("content", "text", "refusal", "end"),
    [
        ("hi", "hi", None, "stop"),
        (None, "", None, "stop"),
        ([], "", None, "stop"),
        ([{"type": "text", "text": "h"}, {"type": "text", "text": "i"}], "hi", None, "stop"),
        ([{"type": "output_text", "text": "hi", "annotations": []}], "hi", None, "stop"),
        ({"type": "text", "text": "hi"}, "hi", None, "stop"),
        (["h", "i"], "hi", None, "stop"),
        ([{"text": "hi"}], "hi", None, "stop"),
        ([None, {"type": "text", "text": "hi"}], "hi", None, "stop"),
        (
            [{"type": "reasoning", "text": "hm"}, {"type": "redacted_thinking", "data": "x"}, {"type": "text", "text": "hi"}],
            "hi",
            None,
            "stop",
        ),
        ([{"type": "refusal", "refusal": "no"}], "", "no", "stop"),
        ([{"type": "text", "text": "hi"}, {"type": "refusal", "refusal": "no"}], "hi", "no", "stop"),
        ([{"type": "text", "text": "hi"}, {"type": "tool_use", "name": "f", "input": {}}], "hi", None, "tool_calls"),
        ([{"type": "text", "text": "hi"}, {"type": "image_url", "image_url": {}}], "hi", None, NOT_TEXT),
        ([{"type": "text", "text": 3}], "", None, NOT_TEXT),
        ([{"type": "brand_new", "text": "hi"}], "", None, NOT_TEXT),
        (3, "", None, NOT_TEXT),
        (True, "", None, NOT_TEXT),
        ({"answer": "hi"}, "", None, NOT_TEXT),
    ],
)
def test_content_is_text_parts_or_nothing(content, text, refusal, end):
    assert parse(json.dumps(completion(content))) == Reply(text, refusal, end, None, None)
    assert parse(json.dumps(completion(content, "length"))).finish_reason == "length", "what is cut off is cut off, whatever it holds"


@pytest.mark.parametrize(
    ("message", "refusal", "end"),
    [
        ({"refusal": "no"}, "no", "stop"),
        ({"refusal": ""}, None, "stop"),
        ({"refusal": {"reason": "no"}}, '{"reason": "no"}', "stop"),
        ({"tool_calls": []}, None, "stop"),
        ({"tool_calls": [{}]}, None, "tool_calls"),
        ({"function_call": {"name": "f"}}, None, "tool_calls"),
        ({"function_call": None, "tool_calls": None}, None, "stop"),
    ],
)
def test_what_stands_beside_the_content_counts(message, refusal, end):
    assert parse(json.dumps(completion(**message))) == Reply("hi", refusal, end, None, None)


@pytest.mark.parametrize("choice", [{"delta": {"content": "hi"}}, {"text": "hi"}, {"message": None, "delta": {"content": "hi"}}])
def test_an_answer_under_the_name_of_another_protocol_is_read(choice):
    assert parse(json.dumps({"choices": [choice | {"finish_reason": "stop"}]})).text == "hi"


def events(*choices, end="data: [DONE]\n\n", **last):
    lines = [{"choices": [choice], "usage": None} for choice in choices] + ([{"choices": [], **last}] if last else [])
    return ": a comment\n\n" + "".join(f"data: {json.dumps(line, ensure_ascii=False)}\r\n\r\n" for line in lines) + end


STREAM = [
    {"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None},
    {"index": 0, "delta": {"content": "h\u2028"}, "finish_reason": None},
    {"index": 1, "delta": {"content": "another choice"}},
    {"index": 0, "delta": {"content": "i", "reasoning_content": "hm"}},
    {"index": 0, "delta": {}, "finish_reason": "stop"},
]


def test_an_answer_that_is_streamed_unasked_is_used_where_it_is_whole():
    usage = {"prompt_tokens": 12, "completion_tokens": 4}
    assert parse(events(*STREAM, usage=usage).encode()) == Reply("h\u2028i", None, "stop", 12, 4)
    assert parse(events(*STREAM, end="")).text == "h\u2028i"
    assert end_of(parse(events(*STREAM[:-1])).finish_reason) is End.UNTOLD
    assert (
        parse(events(STREAM[0], {"index": 0, "delta": {"refusal": "n"}}, {"index": 0, "delta": {"refusal": "o"}}, STREAM[-1])).refusal
        == "no"
    )
    calls = {"index": 0, "delta": {"tool_calls": [{"index": 0}]}}
    assert end_of(parse(events(*STREAM[:2], calls, STREAM[-1])).finish_reason) is End.CALL
    with pytest.raises(Broken, match="later"):
        parse(events(*STREAM[:2], error={"code": 502, "message": "later"}))
    whole = events(*STREAM, end="")
    for size in range(whole.index("finish_reason", whole.index("another"))):
        with pytest.raises(NoCompletion):
            parse(whole[:size])


@pytest.mark.parametrize(
    ("usage", "tokens"),
    [
        (None, (None, None)),
        ({}, (None, None)),
        ([], (None, None)),
        ("12", (None, None)),
        ({"prompt_tokens": 12, "completion_tokens": 4}, (12, 4)),
        ({"prompt_tokens": "12", "completion_tokens": 4.0}, (12, 4)),
        ({"prompt_tokens": None, "completion_tokens": None, "total_tokens": None}, (None, None)),
        ({"prompt_tokens": 12, "completion_tokens": None}, (12, None)),
        ({"prompt_tokens": 12, "total_tokens": 16}, (12, 4)),
        ({"completion_tokens": 4, "total_tokens": 16}, (12, 4)),
        ({"prompt_tokens": 12, "completion_tokens": 4, "total_tokens": 116}, (12, 104)),
        ({"prompt_tokens": 12, "completion_tokens": 4, "total_tokens": 3}, (12, 4)),
        ({"prompt_tokens": -1, "completion_tokens": True}, (None, None)),
        ({"prompt_tokens": {}, "completion_tokens": [4]}, (None, None)),
        ({"prompt_tokens": float("nan"), "completion_tokens": float("inf")}, (None, None)),
        ({"prompt_tokens": 10**300, "completion_tokens": 2**64}, (None, None)),
        ({"prompt_tokens": 0, "completion_tokens": 0}, (None, None)),
        ({"input_tokens": 12, "output_tokens": 4}, (12, 4)),
    ],
)
def test_no_usage_costs_the_answer(usage, tokens):
    assert parse(json.dumps(completion() | {"usage": usage})) == Reply("hi", None, "stop", *tokens)


@pytest.mark.parametrize(
    ("word", "end"),
    [
        ("stop", End.WHOLE),
        ("STOP", End.WHOLE),
        ("end_turn", End.WHOLE),
        ("endTurn", End.WHOLE),
        ("FinishReason.STOP", End.WHOLE),
        ("Length", End.CUT_OFF),
        ("MAX-TOKENS", End.CUT_OFF),
        ("Safety", End.REFUSED),
        ("content-filter", End.REFUSED),
        ("tool_calls", End.CALL),
        ("ERROR", End.FAILED),
        ("stopped early", End.UNKNOWN),
        ("ok", End.UNKNOWN),
        ("完成", End.UNKNOWN),
        ("null", End.UNKNOWN),
        ("", End.UNTOLD),
        (None, End.UNTOLD),
    ],
)
def test_what_is_not_known_to_be_whole_is_not(word, end):
    assert end_of(word) is end
    assert end_of(word, whole_words(("OK", "none", "完成"))) is (End.WHOLE if word in ("ok", "完成", "", None) else end)


@pytest.mark.parametrize("word", [7, {"type": "stop"}, ["stop"], True])
def test_a_finish_reason_of_another_type_is_read(word):
    reply = parse(json.dumps(completion("hi", word)))
    assert end_of(reply.finish_reason) is (End.WHOLE if isinstance(word, dict) else End.UNKNOWN)


@pytest.mark.parametrize(
    ("error", "status", "content", "rest"),
    [
        ({"message": "no", "code": 429}, 429, False, None),
        ({"message": "no", "code": "429", "metadata": {"retry_after_seconds": 2.5}}, 429, False, 2.5),
        ({"message": "no", "type": "rate_limit_error", "retry_after": "3"}, 429, False, 3),
        ({"message": "no", "status": "RESOURCE_EXHAUSTED", "details": [{"retryDelay": "250ms"}]}, 429, False, 0.25),
        ({"message": "no", "code": "throttling_exception", "metadata": {"headers": {"Retry-After": "soon"}}}, 429, False, None),
        ({"message": "no", "code": "ModelOverloaded"}, 503, False, None),
        ({"message": "no", "type": "server_error", "code": None}, 500, False, None),
        ({"message": "no", "type": "invalid_request_error", "code": "model_not_found"}, 404, False, None),
        ({"message": "no", "type": "authentication_error"}, 401, False, None),
        ({"message": "no", "code": "Content-Filter"}, None, True, None),
        ({"message": "no", "code": 400, "metadata": {"raw": '{"error": {"type": "prompt_blocked"}}'}}, 400, True, None),
        ({"message": "no", "code": 400, "metadata": {"raw": '{"error": {"type": "prompt_blo'}}, 400, False, None),
        ({"message": "no", "code": [429]}, None, False, None),
        ({"message": {"words": "no"}, "code": 999}, None, False, None),
        ("no", None, False, None),
        ("no: model 'm' not found", 404, False, None),
        ("no, invalid API key", 401, False, None),
        ("no, Too Many Requests", 429, False, None),
        ("no, insufficient balance", 402, False, None),
        ({"message": "no, too many requests", "code": 400}, 400, False, None),
        (["no"], None, False, None),
        ({"code": True, "because": "no"}, None, False, None),
    ],
)
def test_an_error_is_read_whatever_its_shape(error, status, content, rest):
    fault = read_fault(error)
    assert (fault.status, fault.content, fault.retry_after) == (status, content, rest) and "no" in fault.said


@pytest.mark.parametrize(
    ("said", "content"),
    [
        ("The response was filtered due to the prompt triggering our content management policy.", True),
        ("Content Exists Risk", True),
        ("Output blocked by content filtering policy", True),
        ("Your request was rejected as a result of our safety system.", True),
        ("Input data may contain inappropriate content.", True),
        ("your prompt was flagged as potentially violating our usage policy", True),
        ("litellm.ContentPolicyViolationError: AzureException", True),
        # These are about the account, the request's form or the network, and would be said of every row.
        ("Your account has been flagged for violating our usage policies.", False),
        ("Sorry, you have been blocked by the security policy of this site.", False),
        ("request was blocked: origin is not allowed", False),
        ("Invalid content type. image_url is only supported by certain models.", False),
        ("messages.0.content: field required", False),
        ("temperature is not supported with this model", False),
    ],
)
def test_words_tell_a_filter_from_a_mistake(said, content):
    assert read_fault({"error": {"message": said, "code": 400}}).content_words is content


def test_the_documentation_names_every_word_that_is_known():
    text = (Path(__file__).parents[3] / "docs/how-to/generate-with-a-chat-api.md").read_text("utf-8")
    rows = dict(re.findall(r"^\| ([a-z, ]+) \| (`.*`) \|$", text, re.MULTILINE))
    kinds = {
        "complete": End.WHOLE,
        "cut off": End.CUT_OFF,
        "refused": End.REFUSED,
        "tool call": End.CALL,
        "failed, retried": End.FAILED,
    }
    for kind, end in kinds.items():
        assert set(re.findall(r"`([a-z_]+)`", rows[kind])) == set(reply.WORDS[end].split()), kind
        assert all(end_of(word) is end for word in reply.WORDS[end].split())


def test_an_error_tells_a_moment_to_wait_for():
    for moment in (time.time() + 5, (time.time() + 5) * 1000):
        rest = read_fault({"code": 429, "metadata": {"headers": {"X-RateLimit-Reset": str(round(moment))}}}).retry_after
        assert rest is not None and 3 < rest < 6


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda x: (
            st.lists(x, max_size=4)
            | st.dictionaries(
                st.sampled_from(
                    "choices message content error code type text refusal finish_reason usage prompt_tokens metadata raw headers".split()
                ),
                x,
                max_size=4,
            )
        ),
        max_leaves=20,
    )
)
def test_whatever_a_server_says_it_is_an_answer_an_error_or_neither(value):
    with suppress(NoCompletion, Broken):
        assert isinstance(parse(json.dumps(value)).text, str)
    assert isinstance(read_fault(value).said, str)


def test_the_address_is_of_everything_that_decides_the_answer():
    base = {"model": "m", "messages": opening("", "hi")}
    requests = [
        Request("a", base),
        Request("b", base),
        Request("a", base | {"temperature": 0}),
        Request("a", base | {"temperature": 0.0}),
        Request("a", base | {"messages": opening("hi", "hi")}),
        Request("a", base, attempt=1),
    ]
    assert len({request.key for request in requests}) == len(requests)
    assert Request("a", dict(reversed(base.items()))).key == requests[0].key


def test_experiments_that_run_aside_share_the_answers_of_their_workspace(tmp_path, monkeypatch):
    aside = tmp_path / ".dvc" / "tmp" / "exps" / "standalone" / "tmp123"
    aside.mkdir(parents=True)
    assert answers_path(aside) == answers_path(tmp_path) == tmp_path / ".adapterbuild" / "answers.sqlite"
    monkeypatch.setenv("ADAPTERBUILD_ANSWERS", str(tmp_path / "shared.sqlite"))
    assert answers_path(aside) == tmp_path / "shared.sqlite"


def test_proxies_of_the_environment_are_used(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1,localhost")
    assert proxy_of("https://api.example.org/v1", {"https": "http://proxy:3128"}) == "http://proxy:3128"
    assert proxy_of("http://127.0.0.1:8000/v1", {"http": "http://proxy:3128"}) is None
    assert proxy_of("https://api.example.org/v1", {}) is None
