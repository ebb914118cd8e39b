"""What providers and servers answer, written down from their documentation (`recorded/`), each served over HTTP: what it becomes."""

import json
from collections import Counter
from pathlib import Path

import pytest

from engine.core.errors import UserError
from stages.generate.asking.cache import Answers, answers_path
from stages.generate.question import Tally
from tests.stages.generate.chatting import ask, chat

RECORDED = {path.stem: json.loads(path.read_text("utf-8")) for path in sorted((Path(__file__).parent / "recorded").glob("*.json"))}
CASES = [pytest.param(case, id=f"{name}: {case['name']}") for name, found in RECORDED.items() for case in found["cases"]]
FINE = {"choices": [{"index": 0, "message": {"role": "assistant", "content": "Fine."}, "finish_reason": "stop"}]}


def script(case):
    """A recorded response, and the good answer that follows where it is tried again."""
    recorded = {
        "status": case.get("status", 200),
        "headers": case.get("headers", {}),
        "body": case["raw"] if "raw" in case else json.dumps(case["body"]),
    }
    return [recorded, {"body": json.dumps(FINE)}] if "retried" in case["becomes"] else [recorded]


def test_each_provider_is_recorded_with_its_source_and_the_ends_that_it_has():
    assert {"openai", "azure", "anthropic", "gemini", "openrouter", "vllm", "llama-cpp", "ollama", "litellm"} <= RECORDED.keys()
    for name, found in RECORDED.items():
        assert found["sources"] and all(source.startswith("https://") for source in found["sources"]), name
        kinds = {kind for case in found["cases"] for kind in case["becomes"]}
        assert {"row", "retried"} <= kinds and kinds & {"left_out", "ends"}, name


def said_by(case):
    """The answer that a recorded response becomes, or the reason why it becomes none; of one that is tried again, that of the second."""
    return case["becomes"].get("row") or case["becomes"].get("left_out") or "Fine."


def reasons(cases):
    """What is counted of the requests that CASES take, and of those that are tried again."""
    outcomes, retries = Counter(), Counter()
    for case in cases:
        becomes = case["becomes"]
        outcomes[becomes.get("left_out", "answered")] += 1
        if "retried" in becomes:
            outcomes[becomes["retried"]] += 1
            retries[becomes["retried"]] += 1
    return outcomes, retries


@pytest.mark.parametrize("case", CASES)
def test_what_a_recorded_response_becomes(server, case):
    becomes, prompts, tally = case["becomes"], ["before", "recorded", "after"], Tally()
    server.set(scripted={"recorded": script(case)})
    # One at a time: the second request goes without the official client.
    teacher = chat(server, in_flight=1)
    if "ends" in becomes:
        ended(case, teacher, prompts, server)
        return
    expected = ["BEFORE", said_by(case), "AFTER"]
    assert ask(teacher, prompts, tally=tally) == expected
    received, measured = server.journal()["received"], tally.measured["teacher"]
    times = [when for when, prompt, _ in received if prompt == "recorded"]
    assert len(times) == (2 if "retried" in becomes else 1), "an answer is paid for once"
    if "rest" in becomes:
        assert times[1] - times[0] >= becomes["rest"] * 0.95, "the endpoint asks to wait for so long"
    outcomes, retries = reasons([case])
    assert measured["outcomes"] == outcomes + Counter(answered=2) and measured["retries"] == retries
    assert sum(measured["outcomes"].values()) == measured["requests"] == len(received)
    if "row" in becomes:
        with Answers(answers_path()) as kept:
            rows = kept._connection.execute(
                "SELECT prompt_tokens, completion_tokens FROM answers WHERE text = ?", (becomes["row"],)
            ).fetchall()
        assert rows == [tuple(-1 if count is None else count for count in becomes["tokens"])]
    assert ask(teacher, prompts) == expected and len(server.received()) == len(received), "what was answered is kept, whatever it is"


def ended(case, teacher, prompts, server):
    with pytest.raises(UserError) as caught:
        ask(teacher, prompts)
    said = str(caught.value)
    assert all(words in said for words in case["becomes"]["ends"]), said
    assert caught.value.problems[0].where.line == 2 and server.received().count("recorded") == 1


def test_the_first_request_of_a_run_which_the_official_client_sends_is_read_alike(server):
    for number, case in enumerate(case.values[0] for case in CASES):
        if case.get("status", 200) != 200 and not case["becomes"].keys() & {"ends", "rest"}:
            server.set(scripted={f"first {number}": script(case)})
            assert ask(chat(server), [f"first {number}"]) == [said_by(case)], case["name"]


@pytest.fixture
def batching(server):
    server.set(batches={}, files={}, batch_delay=0.0)
    return chat(server, batch=True, batch_poll=0.01)


def test_a_batch_may_answer_in_all_recorded_forms_at_once(server, batching):
    cases = {f"recorded {number}": case.values[0] for number, case in enumerate(CASES) if "ends" not in case.values[0]["becomes"]}
    server.set(scripted={prompt: script(case) for prompt, case in cases.items()})
    tally, expected = Tally(), [said_by(case) for case in cases.values()]
    assert ask(batching, cases, tally=tally) == expected
    outcomes, retries = reasons(cases.values())
    measured = tally.measured["teacher"]
    assert measured["outcomes"] == outcomes and measured["retries"] == retries and server.journal()["batches"] == 2
    assert measured["requests"] == sum(outcomes.values()) == len(server.received())
    assert ask(batching, cases) == expected and len(server.received()) == sum(outcomes.values())


@pytest.mark.parametrize("case", [case for case in CASES if "ends" in case.values[0]["becomes"]])
def test_a_mistake_in_a_batch_ends_the_step_at_its_row_and_the_rest_is_kept(server, batching, case):
    server.set(scripted={"recorded": script(case)})
    ended(case, batching, ["before", "recorded", "after"], server)
    server.set(scripted={"recorded": [{"body": json.dumps(FINE)}]})
    assert ask(batching, ["before", "recorded", "after"]) == ["BEFORE", "Fine.", "AFTER"]
    assert sorted(server.received()) == ["after", "before", "recorded", "recorded"]
