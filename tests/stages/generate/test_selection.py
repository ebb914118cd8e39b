"""Columns, filters, limits and samples: what is used, what is counted, and what never moves."""

import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from engine.core.errors import Location, UserError
from stages.generate.selecting import Selected
from stages.generate.selection import Column, Sample, Selection


def select(rows, **selection):
    """The rows that are used, and the counts."""
    read = []
    source = ((Location("rows", number), row) for number, row in enumerate(rows, 1) if not read.append(number))
    selected = Selected(Selection(**selection))
    found = [row for _, row in selected.rows(source)]
    assert selected.rows_in == len(read) == len(found) + selected.left_out.total()
    return found, selected


def numbers(count):
    return [{"n": n} for n in range(count)]


def test_columns_are_renamed_and_made_of_others():
    row = {"old": "x", "section text": "s", "items": [{"a": 1}], "n": 2}
    columns = {"new": "old", "words": "section text", "first": "items[0].a", "twice": "n * 2", "old": "n"}
    assert select([row], columns=columns)[0] == [{**row, "new": "x", "words": "s", "first": 1, "twice": 4, "old": 2}]


@pytest.mark.parametrize(
    ("type", "value", "expected"),
    [
        ("integer", "12", 12),
        ("integer", 3.0, 3),
        ("number", "1e-3", 0.001),
        ("text", 5, "5"),
        ("text", {"a": 1}, '{"a": 1}'),
        ("boolean", "Yes", True),
        ("boolean", 0, False),
        ("json", '[{"a": 1}]', [{"a": 1}]),
        ("json", [1], [1]),
        ("integer", None, None),
    ],
)
def test_columns_are_converted(type, value, expected):
    ((row,), _) = select([{"v": value}], columns={"v": Column(of="v", type=type)})
    assert row == {"v": expected}


@pytest.mark.parametrize(
    ("type", "value"),
    [
        ("integer", "1.5"),
        ("integer", True),
        ("integer", 1.5),
        ("number", "nan"),
        ("number", "much"),
        ("boolean", "perhaps"),
        ("json", "{"),
        ("json", "NaN"),
        ("number", [1]),
    ],
)
def test_what_cannot_be_converted_is_the_users_error(type, value):
    with pytest.raises(UserError, match=r"columns\.v must be") as caught:
        select([{"v": value}], columns={"v": Column(of="v", type=type)})
    assert caught.value.problems[0].where.line == 1


def test_a_missing_column_is_told_with_the_nearest():
    with pytest.raises(UserError) as caught:
        select([{"title": "x"}], columns={"new": "titel"})
    assert "'titel', which this row does not have" in str(caught.value) and "did you mean 'title'?" in str(caught.value)


def test_an_expression_that_is_none_says_why_beside_being_no_column():
    with pytest.raises(UserError, match="which this row does not have") as caught:
        select([{"title": "x"}], columns={"new": "title.split('#')[1] | trimm"})
    assert caught.value.problems[0].hint == "it is not a valid expression either: No filter named 'trimm'."
    with pytest.raises(UserError, match="section text") as caught:
        select([{"title": "x"}], columns={"new": "section text"})
    assert "expression" not in (caught.value.problems[0].hint or "")


def test_a_filter_leaves_out_and_counts():
    found, selected = select(numbers(10), where="n % 3 == 0 and n > 0")
    assert found == [{"n": 3}, {"n": 6}, {"n": 9}] and selected.left_out == {"where": 7}


@pytest.mark.parametrize("where", ["team", "team == 'a'", "stars > 1 and team", 'team | upper == "A"'])
def test_the_hint_for_a_row_without_a_field_is_a_filter_that_leaves_it_out(where: str):
    rows = [{"team": "a", "stars": 2}, {"stars": 3}, {"teem": "a", "stars": 3}]
    with pytest.raises(UserError, match="where uses field 'team', which this row does not have") as caught:
        select(rows, where=where)
    given = tomllib.loads((caught.value.problems[0].hint or "").partition("write: ")[2])
    assert select(rows, **given)[0] == rows[:1]


def test_a_limit_stops_reading_after_the_last_row_that_is_used():
    found, selected = select(numbers(10), where="n > 2", limit=2)
    assert found == [{"n": 3}, {"n": 4}] and selected.rows_in == 5


@given(st.lists(st.integers(0, 50), max_size=40), st.integers(1, 20), st.integers(0, 3))
def test_a_sample_of_rows_is_of_that_size_and_in_order(values, size, seed):
    rows = [{"n": n, "at": at} for at, n in enumerate(values)]
    found, _ = select(rows, sample=Sample(rows=size, seed=seed))
    assert len(found) == min(size, len(rows)) and [row["at"] for row in found] == sorted(row["at"] for row in found)


@given(st.sets(st.integers(0, 1000), max_size=60), st.integers(1001, 2000), st.sampled_from([{"rows": 7}, {"share": 0.3}]))
def test_another_row_displaces_at_most_one_of_a_sample(values, added, size):
    before, _ = select([{"n": n} for n in sorted(values)], sample=Sample(**size))
    after, _ = select([{"n": n} for n in [added, *sorted(values)]], sample=Sample(**size))
    gone = [row for row in before if row not in after]
    assert len(gone) <= ("rows" in size) and all(row in before or row == {"n": added} for row in after)


def test_a_share_is_about_what_was_asked_and_another_seed_takes_others():
    first, second = (select(numbers(4000), sample=Sample(share=0.25, seed=seed))[0] for seed in (0, 1))
    assert 900 < len(first) < 1100 and first != second


@pytest.mark.parametrize("wrong", [{}, {"rows": 1, "share": 0.5}])
def test_a_sample_has_one_size(wrong):
    with pytest.raises(ValidationError, match="either rows or share"):
        Sample(**wrong)


NOT_STRICT = ['{"v": 1e999}', '{"v": -1e999}', "[NaN]", "Infinity", '{"a": {"b": 1, "b": 2}}', '[{"a": 1, "a": 1}]']


@pytest.mark.parametrize("text", [*NOT_STRICT, "9" * 5000, "[" * 100_000])
def test_a_text_that_is_no_strict_json_is_told_of_at_its_row(text):
    with pytest.raises(UserError) as caught:
        select([{"j": "1"}, {"j": text}], columns={"v": Column(of="j", type="json")})
    (problem,) = caught.value.problems
    assert problem.where == Location("rows", 2) and problem.what.startswith("columns.v must be JSON text") and problem.hint


@pytest.mark.parametrize("type", ["integer", "number"])
@pytest.mark.parametrize("value", ["1e999", "NaN", "inf", "-Infinity", "nan", "9" * 5000, 10**400, "1_0e999", "0x1f"])
def test_a_text_that_is_no_finite_number_is_told_of_at_its_row(type, value):
    if type == "integer" and value == 10**400:
        assert select([{"j": value}], columns={"v": Column(of="j", type=type)})[0][0]["v"] == value
        return
    with pytest.raises(UserError) as caught:
        select([{"j": "1"}, {"j": value}], columns={"v": Column(of="j", type=type)})
    assert caught.value.problems[0].where == Location("rows", 2)


@pytest.mark.parametrize(
    ("expression", "what"),
    [
        ("n * 1e308 * 10", "Infinity, which is not a JSON number"),
        ("[n, n * -1e308 * 10]", "-Infinity"),
        ("{'a': [n * 1e308 * 10 - n * 1e308 * 10]}", "NaN"),
        ("(n + 9) ** 5000", "an integer of more than 4,300 digits"),
        ("{1: n}", "an object with the key 1, which is not text"),
        ("[n] | map('string')", "a generator, which is not a JSON value"),
    ],
)
def test_an_expression_that_gives_what_cannot_be_written_is_told_of_at_its_row(expression, what):
    with pytest.raises(UserError) as caught:
        select([{"n": 1}], columns={"v": expression})
    (problem,) = caught.value.problems
    assert problem.where == Location("rows", 1) and problem.what.startswith(f"columns.v is {what}") and expression in problem.hint
