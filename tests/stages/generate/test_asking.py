"""How the body and its teachers work together: in order, in batches of the teacher's own size, with memory that does not grow by rows."""

import tracemalloc
from collections.abc import Iterable, Iterator
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.core.errors import Location
from engine.core.part import Part
from stages.generate import Parameters
from stages.generate.body import Generation
from stages.generate.question import Answer, Question, Tally
from stages.generate.sources.jsonl import Jsonl
from stages.generate.teachers.gold import Gold
from stages.process.job import Job


class Batched(Part):
    """A teacher that reads AHEAD questions before it answers the first of them, and refuses some."""

    ahead: int

    def columns(self) -> tuple[str, ...]:
        return ()

    def answers(self, questions: Iterable[Question], job: Job, tally: Tally) -> Iterator[Answer]:
        questions = iter(questions)
        while batch := list(islice(questions, self.ahead)):
            tally.counted["batches"] = tally.counted.get("batches", 0) + 1
            for question in batch:
                yield Answer(question.prompt.upper(), "refused" if "no" in question.prompt else None)


def generation(tmp_path, teacher, **changes):
    values = {"source": Jsonl(path="x"), "prompts": ("{{ text }}",), "teacher": Gold(column="text"), "empty_fields": "leave_out"}
    parameters = Parameters(**(values | changes))
    return Generation(parameters.model_copy(update={"teacher": teacher}), Job("generate-x", {}, tmp_path, None, tmp_path))


def source(texts):
    return ((Location("rows", number), {"text": text}) for number, text in enumerate(texts, 1))


@given(st.lists(st.sampled_from(["a", "b", "no", "", "c", "\ud800"])), st.integers(1, 7))
def test_answers_meet_their_questions_whatever_the_batch(tmp_path_factory, texts, ahead):
    made = generation(tmp_path_factory.getbasetemp(), Batched(ahead=ahead))
    rows = list(made.rows(source(texts)))
    assert [(row["prompt"], row["completion"]) for row in rows] == [(t, t.upper()) for t in texts if t in ("a", "b", "c")]
    metrics = made.metrics()
    reasons = {"refused": texts.count("no"), "empty field 'text'": texts.count(""), "lone surrogate": texts.count("\ud800")}
    assert metrics["left_out"] == {reason: count for reason, count in reasons.items() if count}
    assert metrics["rows_in"] == metrics["rows_out"] + sum(metrics["left_out"].values()) == len(texts)
    asked = len(texts) - texts.count("") - texts.count("\ud800")
    assert metrics.get("teacher", {}) == ({"batches": -(-asked // ahead)} if asked else {})


def test_no_more_rows_are_read_than_the_teacher_asks_for(tmp_path):
    read = []
    rows = generation(tmp_path, Batched(ahead=3)).rows(row for row in source("abcdefghi") if not read.append(row))
    next(rows)
    assert len(read) == 3


def test_memory_does_not_hold_the_rows(tmp_path):
    made = generation(tmp_path, Batched(ahead=64))
    rows = made.rows(source(f"{n} " + "long text " * 100 for n in range(10_000)))
    next(rows)
    tracemalloc.start()
    assert sum(1 for _ in rows) == 9_999
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 10_000 * 300, "ten million characters went through, and only their hashes stay"


def test_a_teacher_that_loses_an_answer_is_our_mistake(tmp_path):
    class Lazy(Batched):
        def answers(self, questions, job, tally):
            list(questions)
            yield Answer("x")

    with pytest.raises(AssertionError):
        list(generation(tmp_path, Lazy(ahead=1)).rows(source("ab")))
