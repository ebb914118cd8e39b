"""The chat teacher against a server that fails in every way: each answer is asked for once, kept at once, and judged for what it is."""

import json
import re
import sqlite3
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest

from engine.core.errors import Location, UserError
from engine.spec.judge import Judge
from stages.generate.asking import session, status
from stages.generate.asking.cache import Answers, answers_path
from stages.generate.question import Question, Tally
from stages.generate.teachers.chat import Chat
from stages.process import progress
from stages.process.job import Job
from tests.stages.generate.chat_server import running
from tests.stages.generate.chatting import KEY, SCHEMA, ask, chat, problem


def test_answers_come_in_order_whatever_their_time(server):
    server.set(delay=0.01)
    prompts = [f"q{number} [500*1]" if number % 7 == 0 else f"q{number}" for number in range(60)]
    tally = Tally()
    assert ask(chat(server, in_flight=8), prompts, tally=tally) == [f"Q{number}" for number in range(60)]
    assert server.journal()["most_in_flight"] == 8
    measured = tally.measured["teacher"]
    assert measured["requests"] == 69 and measured["retries"] == {"500": 9} and measured["prompt_tokens"] > 60


def test_nothing_is_asked_twice(server):
    prompts = [f"twice {number % 10}" for number in range(40)]
    first = ask(chat(server), prompts)
    assert Counter(server.received()) == dict.fromkeys({f"twice {number}" for number in range(10)}, 1)
    assert ask(chat(server), prompts) == first and len(server.received()) == 10
    assert ask(chat(server), [*prompts, "one more"])[-1] == "ONE MORE" and len(server.received()) == 11
    # Resources do not change what is asked; every other field does, and so does the system prompt.
    ask(chat(server, in_flight=3, timeout=2.0, requests_per_minute=10_000, max_cost=9.0, input_price=1.0, output_price=1.0), prompts)
    assert len(server.received()) == 11
    changes = (
        {"temperature": 0.0},
        {"top_p": 0.5},
        {"max_tokens": 9},
        {"sampling_seed": 1},
        {"stop": ("x",)},
        {"extra": {"k": 1}},
        {"model": "n"},
    )
    for count, change in enumerate(changes, 1):
        ask(chat(server, **change), ["twice 1"])
        assert len(server.received()) == 11 + count
    ask(chat(server), ["twice 1"], system="Be brief.")
    assert len(server.received()) == 12 + len(changes)


@pytest.mark.parametrize(
    "fault", ["500*2", "503*1", "429*2", "429-after*1", "timeout*1", "reset*2", "half*1", "drip*1", "garbage*2", "html*1", "no-choices*1"]
)
def test_what_may_pass_is_tried_again(server, fault):
    tally = Tally()
    assert ask(chat(server, timeout=0.4), [f"hello [{fault}]"], tally=tally) == ["HELLO"]
    assert sum(tally.measured["teacher"]["retries"].values()) == int(fault[-1]) == len(server.received()) - 1


def test_retry_after_holds_everybody_back(server):
    ask(chat(server, in_flight=4), ["[429-after*1] a", *(f"b{number}" for number in range(30))])
    times = sorted(when for when, *_ in server.journal()["received"])
    assert len(times) == 32 and max(later - earlier for earlier, later in pairwise(times)) >= 0.99, "for a second nobody asks"


@pytest.mark.parametrize(
    ("fault", "reason"),
    [("empty", "empty answer"), ("null", "empty answer"), ("cut", "cut off"), ("refusal", "refused"), ("filtered", "refused")],
)
def test_no_answers_are_kept_apart_and_counted(server, fault, reason):
    prompts = ["fine", f"[{fault}]", "good"]
    assert ask(chat(server), prompts) == ["FINE", reason, "GOOD"]
    assert (
        ask(chat(server), prompts) == ["FINE", reason, "GOOD"] and len(server.received()) == 3
    )  # what was answered is kept, whatever it is
    option = {"refused": "on_refusal", "cut off": "on_cut_off", "empty answer": "on_empty"}[reason]
    failed = problem(chat(server, **{option: "fail"}), prompts)
    assert failed.what.startswith(reason) and failed.where.line == 2 and f'{option} = "drop"' in failed.hint
    assert ask(chat(server, **{option: "retry"}, attempts=4), prompts) == ["FINE", reason, "GOOD"]
    assert len(server.received()) == 6  # the row is asked four times in all, once of them before


def test_asking_again_can_help_and_is_kept_too(server):
    assert ask(chat(server, on_cut_off="retry"), ["[cut*1] long"]) == ["LONG"]
    assert ask(chat(server, on_cut_off="retry"), ["[cut*1] long"]) == ["LONG"] and len(server.received()) == 2


def test_answers_that_match_a_pattern_count_as_refused(server):
    assert ask(chat(server, refusals=("^I MUST", "SORRY")), ["yes", "so sorry"]) == ["YES", "refused"]


def test_structured_answers_are_checked_and_asked_for_once_more_with_the_error(server):
    teacher = chat(server, json_schema=SCHEMA, json_field="title")
    assert ask(teacher, ["one", "[schema*1] two", "[prose] three"]) == ["ONE", "TWO", "invalid JSON"]
    received = server.received()
    again = [prompt for prompt in received if prompt.startswith("This is not what was asked for")]
    assert len(received) == 5 and len(again) == 2
    assert any("title: Field required" in prompt for prompt in again) and any("Invalid JSON" in prompt for prompt in again)
    assert json.loads(ask(chat(server, json_schema=SCHEMA), ["one"])[0]) == {"title": "ONE"} and len(server.received()) == 5


def test_a_mistake_is_said_with_row_and_hint_and_the_rest_is_kept(server):
    failed = problem(chat(server, in_flight=2), ["good", "[400] bad", *(f"more {number}" for number in range(200))])
    assert "returned status 400: failed as asked" in failed.what and failed.where.line == 2
    received = len(server.received())
    assert received < 20  # the others were not sent once the step could not be finished
    with Answers(answers_path()) as kept:
        stored = kept._connection.execute("SELECT count(*) FROM answers").fetchone()[0]
    assert stored == received - 1 == len(server.journal()["answered"])
    for fault, words in {"401": "TEACHER_KEY", "404": "base_url", "301": "base_url", "quota": "credit"}.items():
        assert words in problem(chat(server), [f"[{fault}]"]).hint


def test_a_row_that_fails_for_good_and_an_endpoint_that_is_gone_end_the_step(server):
    assert "failed 3 times for this row: 500" in problem(chat(server, retries=2), ["[500]"]).what
    gone = problem(chat(server, base_url="http://127.0.0.1:9/v1", retries=1), ["a"])
    assert "connection" in gone.what and "kept" in gone.hint
    assert "has not answered for" in problem(chat(server, give_up_after=0.2), ["[429]"]).what


@pytest.mark.parametrize(
    ("bound", "asked"),
    [({"max_requests": 7}, 7), ({"max_total_tokens": 100}, None), ({"max_cost": 1e-4, "input_price": 1.0, "output_price": 1.0}, None)],
)
def test_a_budget_stops_cleanly_and_the_next_run_goes_on(server, bound, asked):
    prompts = [f"budget {number}" for number in range(40)]
    teacher = chat(server, max_tokens=4, **bound)
    stopped = problem(teacher, prompts)
    assert next(iter(bound)) in stopped.what and "kept" in stopped.hint
    received = server.journal()["received"]
    assert len(received) == asked or (asked is None and 0 < sum(tokens for *_, tokens in received) <= 100)
    assert ask(chat(server, max_tokens=4), prompts) == [prompt.upper() for prompt in prompts]
    assert len(server.received()) == 40


def test_the_key_is_sent_and_written_nowhere(server, tmp_path, capfd):
    assert ask(chat(server), ["hello"]) == ["HELLO"]
    assert server.journal()["keys"] == [f"Bearer {KEY}"]
    for fault in ("401", "400", "500"):  # this server repeats the key in its errors
        assert KEY not in str(problem(chat(server, retries=0), [f"[{fault}]"]))
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and KEY.encode() in path.read_bytes()]
    assert KEY not in "".join(capfd.readouterr())


def test_without_a_key_none_is_sent_and_a_missing_one_is_named(server, monkeypatch):
    with running() as other:
        assert ask(chat(other, api_key_env=None), ["a", "b", "c"]) == ["A", "B", "C"]
        assert other.journal()["keys"] == [""]
    monkeypatch.delenv("TEACHER_KEY")
    missing = problem(chat(server), ["a"])
    assert "TEACHER_KEY" in missing.what and "export TEACHER_KEY" in missing.hint


def test_a_damaged_cache_is_the_users_error_and_stays(server):
    path = answers_path()
    path.parent.mkdir()
    path.write_bytes(b"no database" * 1000)
    assert str(path) in problem(chat(server), ["a"]).what
    assert path.read_bytes().startswith(b"no database")


def test_the_cache_hides_from_git_and_holds_no_prompt(server):
    ask(chat(server), ["secret prompt"])
    assert (answers_path().parent / ".gitignore").read_text() == "*\n"
    with sqlite3.connect(answers_path()) as connection:
        assert b"secret prompt" not in b"".join(str(row).encode() for row in connection.execute("SELECT * FROM answers"))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"max_cost": 1.0}, "input_price"),
        ({"json_field": "a"}, "json_schema"),
        ({"extra": {"messages": []}}, "messages"),
        ({"extra": {"temperature": 1}}, "temperature"),
        ({"refusals": ("(",)}, "regular expression"),
        ({"finish_reasons": ("",)}, "finish_reason"),
        ({"json_schema": {"type": "object", "patternProperties": {}}}, "patternProperties"),
        ({"json_schema": {"type": "strange"}}, "no supported type"),
        ({"json_schema": SCHEMA, "json_field": "headline"}, "headline"),
        ({"base_url": "https://user:secret@example.org/v1"}, "base_url"),
        ({"api_key_env": "sk-012 45"}, "api_key_env"),
    ],
)
def test_a_spec_that_cannot_work_is_refused_before_anything_runs(changes, words):
    with pytest.raises(ValueError, match=words):
        Chat(model="m", **changes)


def test_only_a_window_of_questions_is_read_ahead_of_the_answers(server, monkeypatch):
    monkeypatch.setattr(session, "_WINDOW", 50)
    ahead, read, answered = [], 0, 0

    def questions():
        nonlocal read
        for number in range(400):
            read += 1
            ahead.append(read - answered)
            yield Question("", "[timeout*1] first" if number == 0 else f"next {number}", {}, Location("rows.jsonl", number))

    for answer in chat(server, timeout=0.5).answers(questions(), Job("generate-x", {}, Path("o"), None, Path("s")), Tally()):
        answered += 1
        assert answer.text
    assert answered == 400 and 45 < max(ahead) <= 51


def test_the_line_of_progress_says_rate_and_time_left(server, monkeypatch, capfd):
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.1)
    monkeypatch.setattr(status, "_SECONDS_BETWEEN_NOTES", 0.05)
    server.set(delay=0.1)
    ask(chat(server, in_flight=2, input_price=10_000.0, output_price=0.0), [f"[500*1] {n}" for n in range(8)], tally=Tally(expected=8))
    lines = capfd.readouterr().err.splitlines()
    pattern = r"generate-x: \d+/8 answers, [\d.]+/s, \d in flight, 0 cached, \d+ retries, \d+ tokens, cost [\d.]+, \d:\d\d left"
    assert any(re.fullmatch(pattern, line) for line in lines), lines


def whole(content, finish_reason="stop", **more):
    return {"body": json.dumps({"choices": [{"message": {"content": content}, "finish_reason": finish_reason}], **more})}


FINE = whole("fine")


def test_further_ends_of_an_endpoint_are_complete_where_the_spec_says_so(server, capfd):
    ends = {"a": "done_by_me", "b": None, "c": "other"}
    server.set(scripted={prompt: [whole(prompt * 2, end)] for prompt, end in ends.items()})
    left_out = ["unknown finish_reason 'done_by_me'", "no finish_reason", "unknown finish_reason 'other'"]
    assert ask(chat(server), ends) == left_out
    assert "1 with no finish_reason" in (said := capfd.readouterr().err) and "list the endpoint's words" in said
    assert ask(chat(server, finish_reasons=("Done-By-Me", "none")), ends) == ["aa", "bb", left_out[2]]
    assert len(server.received()) == 3, "what is kept is judged anew, not asked for anew"
    failed = problem(chat(server, on_cut_off="fail"), ["a"])
    assert "unknown finish_reason 'done_by_me'" in failed.what and "teacher.finish_reasons" in failed.hint
    assert 'as "none"' in problem(chat(server, on_cut_off="fail"), ["b"]).hint


def test_an_end_of_any_length_is_counted_in_a_line(server):
    server.set(scripted={"a": [whole("a", "very " * 100 + "odd\n\ud800")]})
    (reason,) = ask(chat(server), ["a"])
    assert reason.startswith("unknown finish_reason 'very very") and len(reason) < 80 and reason.isprintable()


@pytest.mark.parametrize("option", ["on_empty", "on_cut_off", "on_refusal"])
def test_every_answer_that_is_none_follows_its_policy(server, option):
    script = {
        "on_empty": [whole("x", "tool_calls"), whole([{"type": "image_url"}]), whole(None)],
        "on_cut_off": [whole("x", "OTHER"), whole("x", None), whole("x", "MAX_TOKENS")],
        "on_refusal": [
            whole("x", "SAFETY"),
            {"status": 403, "body": '{"error": {"code": "content_filter"}}'},
            whole([{"type": "refusal"}]),
        ],
    }[option]
    prompts = [f"q{number}" for number in range(len(script))]
    server.set(scripted={prompt: [step, FINE] for prompt, step in zip(prompts, script, strict=True)})
    assert "fine" not in ask(chat(server), prompts)
    for prompt in prompts:
        assert f'{option} = "drop"' in problem(chat(server, **{option: "fail"}), [prompt]).hint
    assert ask(chat(server, **{option: "retry"}), prompts) == ["fine"] * 3 and len(server.received()) == 6


def test_an_answer_with_a_lone_surrogate_is_kept_as_it_came(server):
    server.set(scripted={"a": [whole("half \ud800 a pair")]})
    assert ask(chat(server), ["a"]) == ["half \ud800 a pair"] == ask(chat(server), ["a"]) and len(server.received()) == 1


def test_faulty_json_with_a_lone_surrogate_can_be_sent_back(server):
    said = '{"title": "half \ud800 a pair"}'
    server.set(scripted={"a": [whole(said), whole('{"title": "mended"}')]})
    teacher = chat(server, json_schema=SCHEMA, json_field="title")
    with pytest.raises(UserError, match="max_requests = 1"):
        ask(chat(server, json_schema=SCHEMA, json_field="title", max_requests=1), ["a"])
    # The first request of the next run repeats what the model said.
    assert ask(teacher, ["a"]) == ["mended"] and len(server.received()) == 2


def test_a_body_that_cannot_be_decompressed_is_tried_again(server):
    server.set(scripted={"a": [{"headers": {"content-encoding": "gzip"}, "body": "no gzip"}, FINE]})
    tally = Tally()
    assert ask(chat(server, in_flight=1), ["first", "a"], tally=tally) == ["FIRST", "fine"]
    assert tally.measured["teacher"]["retries"] == {"connection: the body cannot be decompressed": 1}


def test_the_servers_words_are_said_when_trials_are_over(server):
    server.set(
        scripted={
            "a": [{"status": 500, "body": '{"error": {"message": "the disk is full"}}'}],
            "b": [{"body": '{"error": "gone fishing"}'}],
        }
    )
    assert "failed 2 times for this row: 500: the disk is full" in problem(chat(server, retries=1), ["a"]).what
    failed = problem(chat(server, retries=1), ["b"])
    assert "error without a known code: gone fishing" in failed.what and failed.where.line == 1
    server.set(scripted={"c": [{"body": '{"error": {"code": 429, "message": "tomorrow", "metadata": {"retry_after_seconds": 86400}}}'}]})
    assert "demands a pause of 86400 s: 429: tomorrow" in problem(chat(server), ["c"]).what


def test_errors_inside_status_200_repeat_no_key(server):
    body = json.dumps({"error": {"code": 400, "message": f"your key {KEY} is odd"}})
    server.set(scripted={"a": [{"body": body}]})
    assert KEY not in str(problem(chat(server), ["a"]))


def test_tokens_that_are_not_told_count_as_estimated(server):
    prompts = [f"budget {number}" for number in range(40)]
    server.set(scripted={prompt: [whole("x" * 40, usage={"prompt_tokens": None})] for prompt in prompts})
    assert "max_total_tokens" in problem(chat(server, max_tokens=10, max_total_tokens=100), prompts).what
    assert 0 < len(server.received()) < 12
    tally = Tally()
    ask(chat(server, max_tokens=10), prompts, tally=tally)
    measured = tally.measured["teacher"]
    assert (
        measured["answers_with_estimated_tokens"] == measured["requests"] > 20
        and measured["completion_tokens"] == 10 * measured["requests"]
    )


def test_tokens_of_a_failed_answer_count_too(server):
    used = {"usage": {"prompt_tokens": 30, "completion_tokens": 70}}
    server.set(scripted={"a": [whole("par", "error", **used), whole("paris", **used)]})
    tally = Tally()
    assert ask(chat(server), ["a"], tally=tally) == ["paris"]
    measured = tally.measured["teacher"]
    assert (measured["prompt_tokens"], measured["completion_tokens"]) == (60, 140)
    assert measured["outcomes"] == {"answered": 1, "finish_reason error": 1}


def test_a_judge_is_read_as_any_teacher(server):
    judge = Judge(teacher=chat(server), scores=("score",), lowest=1, highest=5)
    good, again = '{"reason": "well", "score": 4}', "This is not what was asked for"
    odd = [
        '{"reason": "well", "score": true}',
        '{"reason": "well", "score": 4.0}',
        '{"reason": "well", "score": NaN}',
        '{"score": 1, "score": 5}',
    ]
    server.set(scripted={f"q{number}": [whole(said), whole(good)] for number, said in enumerate(odd)} | {"cut": [whole(good, "SAFETY")]})
    said = ask(judge.requested(), [*(f"q{number}" for number in range(len(odd))), "cut"])
    assert [json.loads(one)["score"] for one in said[:-1]] == [4] * len(odd) and said[-1] == "refused"
    assert sum(prompt.startswith(again) for prompt in server.received()) == len(odd)
