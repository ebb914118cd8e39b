"""JSON lines: what is written is read back, and what is wrong is said with its place."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.core.errors import UserError
from stages.rows.jsonl import Writer, dumps, read_objects, write_rows
from stages.rows.strict_json import type_name

any_text = st.text(st.characters())  # lone surrogates, NUL, line separators and all
rows = st.lists(
    st.dictionaries(any_text, any_text | st.integers() | st.none() | st.floats(allow_nan=False, allow_infinity=False), max_size=4),
    max_size=5,
)


def read(path):
    return [row for _, row in read_objects(path)]


def problem(tmp_path, content):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        read(path)
    return caught.value.problems[0]


@given(rows)
def test_every_row_comes_back(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("jsonl") / "rows.jsonl"
    assert write_rows(path, rows) == len(rows)
    assert read(path) == rows
    assert path.read_bytes().count(b"\n") == len(rows)


def test_characters_stay_themselves_and_surrogates_are_escaped():
    assert dumps({"a": "ü\u2028😀"}) == '{"a": "ü\u2028😀"}'
    assert dumps({"a": "ü\ud800"}) == '{"a": "\\u00fc\\ud800"}'


def test_blank_lines_mark_and_carriage_returns_are_no_rows(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"a": 1}\r\n\n  \n{"a": "x\xe2\x80\xa8y"}')
    found = list(read_objects(path))
    assert [row for _, row in found] == [{"a": 1}, {"a": "x\u2028y"}]
    assert [str(where) for where, _ in found] == [f"{path}:1", f"{path}:4"]


def test_a_broken_line_is_shown_with_a_caret(tmp_path):
    found = problem(tmp_path, b'{"a": 1}\n{"a": }\n')
    assert (found.where.line, found.where.column) == (2, 7)
    assert str(found).splitlines()[2:4] == ['  2 | {"a": }', "    |       ^"]


def test_a_long_broken_line_is_located_but_not_shown(tmp_path):
    found = problem(tmp_path, b'{"a": "' + b"x" * 5000 + b'" }}\n')
    assert found.where.column > 5000 and found.where.source is None


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"[1]\n", "must be a JSON object, got a list"),
        (b'{"a": 1}\nnull\n', "must be a JSON object, got null"),
        (b'{"a": NaN}\n', "NaN is no JSON number"),
        (b'{"a": -Infinity}\n', "-Infinity is no JSON number"),
        (b'{"a": 1e999}\n', "1e999 is too large"),
        (b'{"a": 1, "b": 2, "a": 3}\n', "key 'a' stands twice"),
        (b'{"a": "\xff"}\n', "not UTF-8"),
        (b'{"a": ' + b"[" * 100_000 + b"\n", "nested too deeply"),
        (b'{"a": ' + b"9" * 5000 + b"}\n", "not valid JSON"),
        (b'{"a": 1} {"a": 2}\n', "Extra data"),
    ],
)
def test_what_is_no_row_is_refused(tmp_path, content, said):
    found = problem(tmp_path, content)
    assert said in found.what and found.hint
    assert found.where.line == content.count(b"\n")


def test_a_missing_file_is_the_users_error(tmp_path):
    with pytest.raises(UserError, match=r"cannot read .*no\.jsonl: No such file"):
        read(tmp_path / "no.jsonl")


def test_a_writer_counts_and_closes(tmp_path):
    with Writer(tmp_path / "rows.jsonl") as writer:
        writer.write({"a": 1})
        writer.write({"b": 2})
    assert writer.rows == 2 and read(tmp_path / "rows.jsonl") == [{"a": 1}, {"b": 2}]


def test_types_have_the_names_of_json():
    assert [type_name(value) for value in (None, True, 1.5, "", [], {})] == [
        "null",
        "true or false",
        "a number",
        "text",
        "a list",
        "an object",
    ]
