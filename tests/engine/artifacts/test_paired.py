"""Whether metrics of two revisions differ on the same rows: the test of evaluations, and in words why there is none."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from engine.artifacts.history import State, compare, read_state, with_tests
from engine.artifacts.paired import files_needed
from engine.core.digests import canonical
from engine.dvc.dvcfile import Entry, Record
from engine.identity.provenance import Provenance
from stages.evaluate import Parameters
from stages.evaluate.body import run
from stages.evaluate.metrics.exact_match import ExactMatch
from stages.evaluate.metrics.length import Length
from stages.evaluate.metrics.unit_tests import UnitTests
from stages.process.job import Job
from stages.rows.prediction import Prediction
from tests.stages.evaluate.made import rows_of, write
from tests.support.memory_store import MemoryStore, lock_text

STEP = "evaluate-one"
RIGHT = ["a"] * 40
"""The references."""


def answers(right: int, **values) -> list[Prediction]:
    return rows_of(["a"] * right + ["b"] * (40 - right), RIGHT, **values)


def state(
    title: str,
    store: MemoryStore,
    folder: Path,
    predictions: list[Prediction],
    metrics: tuple = (ExactMatch(), Length()),
    name: str = "one",
) -> State:
    """The state of a revision whose evaluation has measured PREDICTIONS, with all its files in STORE."""
    at = write(folder / f"{title}-{name}.jsonl", predictions)
    output = folder / f"{title}-{name}"
    output.mkdir()
    parameters = Parameters(model=name, tasks=("words",), metrics=metrics)
    role = "predictions/words"
    job = Job(f"evaluate-{name}", {role: at}, output, output / "plot.csv", output)
    measured = run(parameters, job)
    read = {role: {"path": f"artifacts/predict-{name}/predictions-words.jsonl", "md5": store.put(at.read_text("utf-8")).md5}}
    recipe = json.loads(json.dumps(parameters.model_dump(mode="json")))
    made = Provenance(f"evaluate-{name}", "evaluate", f"sha256:{title}", {}, "sha256:1", recipe, read)
    record = Record(
        f"python -P -m adapterbuild stages evaluate evaluate-{name}",
        {},
        {f"artifacts/evaluate-{name}.provenance.json": Entry(store.put(made.text()).md5)},
    )
    files = {
        "params.yaml": canonical({f"evaluate-{name}": recipe}),
        "dvc.lock": lock_text({f"evaluate-{name}": record}),
        f"metrics/evaluate-{name}.json": json.dumps(measured).encode(),
        f"plots/evaluate-{name}.csv": (output / "plot.csv").read_bytes(),
    }
    return read_state(title, {path: data if isinstance(data, bytes) else data.encode() for path, data in files.items()})


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


def changes(old: State, new: State, store: MemoryStore):
    return with_tests(compare(old, new, store), store)


def test_a_difference_on_the_same_rows_has_the_interval_and_the_test_of_evaluations(store: MemoryStore, tmp_path: Path):
    found = changes(state("main", store, tmp_path, answers(10)), state("branch", store, tmp_path, answers(35)), store)
    (change,) = found.metrics
    assert change.subject == "words.exact_match" and not found.unpaired
    one, other = answers(35), answers(10)
    at, there = write(tmp_path / "one.jsonl", one), write(tmp_path / "other.jsonl", other)
    output = tmp_path / "evaluated"
    output.mkdir()
    read = {"predictions/words": at, "compare/other/words": there}
    run(
        Parameters(model="one", tasks=("words",), metrics=(ExactMatch(), Length()), compare=("other",)),
        Job(STEP, read, output, output / "p", output),
    )
    (expected, _) = json.loads((output / "comparisons.json").read_text("utf-8"))["comparisons"]
    assert change.paired and expected["metric"] == "exact_match"
    for name in ("difference", "low", "high", "p", "p_corrected", "rows", "interval"):
        assert getattr(change.paired, name) == expected[name], name
    assert change.paired.significant is expected["real"] is True
    ((_, columns, rows, legend),) = found.tables()
    row = dict(zip(columns, rows[0], strict=True))
    assert row["p (Holm)"] == "< 0.001" and row["significant"] == "yes" and row["difference"].startswith("+0.625 [+0.4")
    assert "intervals overlap" not in columns and "p (Holm) < 0.05" in legend and "no test" not in legend
    data = json.loads(json.dumps(found.as_data()))
    assert data["metrics"][0]["paired"]["significant"] is True and data["untested"] == []


def test_p_values_are_corrected_over_all_comparisons_of_a_metric_between_the_revisions(store: MemoryStore, tmp_path: Path):
    def both(title: str, *right: int) -> State:
        one, two = (state(title, store, tmp_path, answers(count), name=name) for name, count in zip(("one", "two"), right, strict=True))
        fields = ("recipes", "records", "metrics", "intervals")
        return replace(one, **{field: {**getattr(one, field), **getattr(two, field)} for field in fields})

    found = {c.step: c.paired for c in changes(both("main", 20, 20), both("branch", 26, 25), store).metrics}
    one, two = found["evaluate-one"], found["evaluate-two"]
    assert one and two and one.p < two.p
    # Holm: the smallest of two times two, the other as it is, and never below the smaller one's.
    assert one.p_corrected == pytest.approx(2 * one.p, abs=1e-6) and two.p_corrected == max(two.p, one.p_corrected)
    assert one.significant is False and one.p < 0.05, "alone it would have been significant"


def test_what_the_cache_lacks_is_said_and_intervals_are_what_is_left(store: MemoryStore, tmp_path: Path):
    old, new = state("main", store, tmp_path, answers(10)), state("branch", store, tmp_path, answers(35))
    whole = dict(store.objects)
    (predictions,) = [md5 for md5, data in whole.items() if data == (tmp_path / "main-one.jsonl").read_bytes()]
    for lost, why in (
        (predictions, "evaluate-one words: the predictions of main are not in the cache"),
        (old.evaluations.statement(STEP), "evaluate-one: the statement of main is not in the cache"),
    ):
        store.objects = {md5: data for md5, data in whole.items() if md5 != lost}
        found = changes(old, new, store)
        assert [text for text, _ in found.lines() if text.startswith("untested")] == [f"untested  {why}"]
        ((_, columns, rows, legend),) = found.tables()
        row = dict(zip(columns, rows[0], strict=True))
        assert row["intervals overlap"] == "no" and "p (Holm)" not in columns and "no test of it" in legend
        assert found.as_data()["metrics"][0]["paired"] is None and len(found.as_data()["untested"]) == 1


def test_other_rows_are_not_compared(store: MemoryStore, tmp_path: Path):
    old = state("main", store, tmp_path, answers(10))
    others = [replace(one, id=f"other-{one.id}") for one in answers(35)]
    edited = [replace(one, prompt="another prompt") for one in answers(35)]
    for title, rows, why in (
        ("others", others, "main has no row in common with others"),
        ("edited", edited, "row row-0 has a different prompt or reference in edited"),
    ):
        found = changes(old, state(title, store, tmp_path, rows), store)
        assert [(one.step, one.task, one.why) for one in found.unpaired] == [(STEP, "words", why)]
        assert [c.paired for c in found.metrics] == [None]


def test_rows_that_only_one_revision_has_are_left_out_and_counted(store: MemoryStore, tmp_path: Path):
    old, new = state("main", store, tmp_path, answers(10)[:30]), state("branch", store, tmp_path, answers(35))
    found = changes(old, new, store)
    paired = {c.subject: c.paired for c in found.metrics}
    assert paired["words.exact_match"].rows == 30 and paired["words.exact_match"].difference == pytest.approx(30 / 30 - 10 / 30, abs=1e-6)
    assert [one.why for one in found.unpaired] == ["only the 30 rows that both answered were tested, of 30 of main and 40 of branch"]


def test_another_metric_and_code_of_answers_are_not_tested(store: MemoryStore, tmp_path: Path):
    """A pull request may bring answers that nobody has read: only evaluations run them, where isolation is a setting of the spec."""
    limits = UnitTests(isolation="limits")
    old = state("main", store, tmp_path, answers(10), (ExactMatch(), limits))
    new = state("branch", store, tmp_path, answers(35), (ExactMatch(), limits, Length()))
    found = changes(old, new, store)
    assert [c.subject for c in found.metrics if c.paired] == ["words.exact_match"]
    assert {one.why for one in found.unpaired} == {
        "unit_tests runs the code of answers, which only evaluations do",
        "length is measured with other settings",
    }


def test_values_that_this_code_does_not_compute_are_not_tested(store: MemoryStore, tmp_path: Path):
    old, new = state("main", store, tmp_path, answers(10)), state("branch", store, tmp_path, answers(35))
    old.metrics[STEP]["words"]["exact_match"] = 0.3
    found = changes(old, new, store)
    assert [c.paired for c in found.metrics] == [None]
    assert [one.why for one in found.unpaired] == ["exact_match of main was computed by other code or package versions"]


def test_equal_answers_are_no_comparison(store: MemoryStore, tmp_path: Path):
    old, new = state("main", store, tmp_path, answers(10)), state("branch", store, tmp_path, answers(10), (ExactMatch(),))
    found = changes(old, new, store)
    assert {c.subject for c in found.metrics} == {"words.length", "words.intervals.length"}
    assert not any(c.paired for c in found.metrics) and not found.unpaired


def test_what_a_test_reads_is_fetched_and_nothing_else(store: MemoryStore, tmp_path: Path):
    old, new = state("main", store, tmp_path, answers(10)), state("branch", store, tmp_path, answers(35))
    same = state("same", store, tmp_path, answers(35), (ExactMatch(),))
    remote, store.objects = store.objects, {}
    asked: list[list[str]] = []

    def fetch(md5s) -> None:
        asked.append(list(md5s))
        store.objects |= {md5: remote[md5] for md5 in asked[-1]}

    files_needed(old.evaluations, new.evaluations, store, fetch)
    statements, predictions = asked
    assert statements == [old.evaluations.statement(STEP), new.evaluations.statement(STEP)]
    assert {remote[md5] for md5 in predictions} == {(tmp_path / f"{name}-one.jsonl").read_bytes() for name in ("main", "branch")}
    assert all(c.paired for c in changes(old, new, store).metrics)
    files_needed(new.evaluations, same.evaluations, store, fetch)
    assert asked[3] == [], "equal answers need no test"
