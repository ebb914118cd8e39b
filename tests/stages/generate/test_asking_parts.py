"""The parts of asking, each alone: schemas, limits, waiting, addresses, headers."""

import asyncio
import json
import time
from bisect import bisect_left
from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.generate.asking import limits
from stages.generate.asking.cache import Averages, answers_path
from stages.generate.asking.client import retry_after
from stages.generate.asking.limits import Circuit, Guess, Prices, Rate, Spending
from stages.generate.asking.reply import Reply, parse
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


@given(
    st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x), max_leaves=5)
)
def test_whatever_a_model_says_a_schema_answers(value):
    completion, complaint = Structure(PERSON, "age").read(json.dumps(value))
    assert bool(complaint) != bool(completion)


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({}, "no type"),
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
        ({"$ref": "#/elsewhere"}, "below #/\\$defs/"),
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

    assert asyncio.run(seconds(10, 0, 1)) < 0.05
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
    "body", ["", "{}", "[]", '{"choices": []}', '{"choices": [{}]}', '{"choices": [{"message": {"content": 3}}]}', '{"choices": [{"message']
)
def test_a_body_that_is_no_answer_is_none(body):
    with pytest.raises(ValueError, match="_Completion"):
        parse(body)


def test_a_body_with_more_than_we_know_is_read():
    body = {"choices": [{"message": {"role": "assistant", "content": "hi", "new": {}}, "logprobs": None}, {"message": {}}], "new": 1}
    assert parse(json.dumps(body)) == Reply("hi", None, None, 0, 0)


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
