"""The batch API: submitted once, collected once, also by a run that comes after the one that sent it was killed."""

import json
from pathlib import Path

import pytest

from engine.core.errors import UserError
from stages.generate.asking import batches
from stages.generate.asking.batches import BatchSession
from stages.generate.asking.cache import Answers, answers_path
from stages.generate.question import Tally
from tests.stages.generate.chatting import SCHEMA, ask, chat

PROMPTS = [f"batch {number}" for number in range(30)]
ANSWERS = [prompt.upper() for prompt in PROMPTS]


def batched(server, **changes):
    return chat(server, **({"batch": True, "batch_poll": 0.05} | changes))


@pytest.fixture(autouse=True)
def no_batches(server):
    server.set(batches={}, files={}, batch_delay=0.1, halves=0)


def open_batches():
    with Answers(answers_path()) as kept:
        return kept._connection.execute("SELECT name, id FROM batches").fetchall()


def test_a_batch_answers_all_and_ordinary_requests_share_its_answers(server):
    assert ask(batched(server), [*PROMPTS, *PROMPTS]) == [*ANSWERS, *ANSWERS]
    assert server.journal()["batches"] == 1 and len(server.received()) == 30
    assert ask(chat(server), PROMPTS) == ANSWERS and ask(batched(server), PROMPTS) == ANSWERS
    assert len(server.received()) == 30 and server.journal()["batches"] == 1 and open_batches() == []


def test_rows_are_read_batch_by_batch(server, monkeypatch):
    monkeypatch.setattr(batches, "LARGEST", 8)
    assert ask(batched(server), PROMPTS) == ANSWERS and server.journal()["batches"] == 4


@pytest.mark.parametrize("moment", ["before the id is known", "while it is waited for"])
def test_a_batch_that_was_sent_is_collected_by_the_next_run(server, monkeypatch, moment):
    class Killed(BaseException):
        pass

    def killed(*arguments):
        raise Killed

    with monkeypatch.context() as patched:
        if moment == "before the id is known":
            keep = Answers.keep_batch
            patched.setattr(Answers, "keep_batch", lambda *a: keep(*a) if a[-1] is None else killed())
        else:
            patched.setattr(BatchSession, "_finish", killed)
        with pytest.raises(Killed):
            ask(batched(server), PROMPTS)
    ((_, identity),) = open_batches()
    assert (identity is None) == (moment == "before the id is known")
    # Another question has come in between: what was sent is collected all the same.
    assert ask(batched(server), [*PROMPTS, "one more"]) == [*ANSWERS, "ONE MORE"]
    assert server.journal()["batches"] == 2 and len(server.received()) == 31 and open_batches() == []


def test_what_a_batch_leaves_unanswered_is_asked_for_in_the_next(server):
    assert ask(batched(server), ["[500*1] a", "b", "c"]) == ["A", "B", "C"]
    assert sorted(server.received()) == ["[500*1] a", "[500*1] a", "b", "c"]
    with pytest.raises(UserError, match="unanswered"):
        ask(batched(server), ["[500] a", "b"])


def test_faulty_json_is_asked_for_once_more_in_a_second_batch(server):
    assert ask(batched(server, json_schema=SCHEMA, json_field="title", refusals=("never",)), ["one", "two"]) == ["ONE", "TWO"]
    assert server.journal()["batches"] == 1


def test_a_batch_that_would_pass_the_budget_is_not_sent(server):
    with pytest.raises(UserError, match="max_requests = 10"):
        ask(batched(server, max_requests=10), PROMPTS)
    assert server.received() == [] and Path(".adapterbuild").exists()


def whole(text):
    return {"choices": [{"message": {"content": text}, "finish_reason": "stop"}]}


EXPIRED = {"code": "batch_expired", "message": "This request could not be executed before the completion window expired."}


@pytest.mark.parametrize(
    ("line", "becomes"),
    [
        ({"response": {"status_code": 200, "body": whole("yes")}, "error": None}, "yes"),
        ({"response": {"body": whole("yes")}}, "yes"),
        ({"response": {"status_code": "200", "body": whole("yes")}}, "yes"),
        ({"response": {"status_code": 200, "body": '{"choices": [{"message": {"content": "yes"}, "finish_reason": "stop"}]}'}}, "yes"),
        ({"response": None, "error": {"code": "content_filter", "message": "no"}}, "refused"),
        (
            {"response": {"status_code": 400, "body": {"error": {"code": "content_filter", "message": "no"}}}, "error": {"code": 400}},
            "refused",
        ),
        ({"response": None, "error": EXPIRED}, None),
        ({"response": {"status_code": 500, "body": None}, "error": {"code": 500, "message": "no"}}, None),
        ({"response": {"status_code": 429, "body": {"error": {"message": "later"}}}}, None),
        ({"response": {"status_code": 200, "body": None}}, None),
        ({"response": {}}, None),
        ('{"custom_id": "somebody else\'s", "response": {"status_code": 200, "body": {}}}', None),
        ('{"response": {"status_code": 200, "body": {}}}', None),
        ('{"custom_id": 12}', None),
        ("[]", None),
        ('{"custom_id": "abcd", "resp', None),
    ],
)
def test_no_line_of_a_batch_costs_the_answers_of_the_others(server, line, becomes):
    server.set(scripted={"odd": [{"line": line}, {"body": json.dumps(whole("in the end"))}]})
    tally = Tally()
    assert ask(batched(server), ["a", "odd", "b"], tally=tally) == ["A", becomes or "in the end", "B"]
    assert sorted(server.received()) == (["a", "b", "odd"] if becomes else ["a", "b", "odd", "odd"]) and open_batches() == []


def test_a_file_of_results_that_does_not_come_whole_is_fetched_again(server):
    server.set(halves=2)
    tally = Tally()
    assert ask(batched(server), PROMPTS, tally=tally) == ANSWERS
    assert len(server.received()) == 30 and tally.measured["teacher"]["retries"] == {"file of results not whole": 2}


def test_requests_of_a_batch_that_all_fail_are_asked_again_and_a_long_rest_ends_the_step(server):
    later = {"status": 429, "body": json.dumps({"error": {"message": "later", "metadata": {"retry_after_seconds": 0.3}}})}
    server.set(scripted={"a": [later, {"body": json.dumps(whole("yes"))}]})
    assert ask(batched(server), ["a"]) == ["yes"] and len(server.received()) == 2
    with pytest.raises(UserError, match="later"):
        server.set(scripted={"b": [later]})
        ask(batched(server, give_up_after=0.2), ["b"])
