"""Positions: hand-made texts for every form of TOML, and generated documents compared with tomllib."""

import tomllib
from textwrap import dedent

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.spec.positions import Span, positions

tomlkit = pytest.importorskip("tomlkit")


def slice_of(text: str, span: Span) -> str:
    """The characters of SPAN, from line, column and length alone."""
    lines = text.replace("\r\n", "\n").split("\n")
    start = sum(len(line) + 1 for line in lines[: span.line - 1]) + span.column - 1
    return text.replace("\r\n", "\n")[start : start + span.length]


def paths_of(value: object, path: tuple = ()) -> dict:
    """Every path below VALUE with what stands there."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    found = {}
    for key, item in items:
        found[(*path, key)] = item
        found |= paths_of(item, (*path, key))
    return found


def assert_agrees(text: str) -> None:
    """The paths are those of tomllib, each key reads as its key, and each value that is written out parses back."""
    data, found = tomllib.loads(text), positions(text)
    expected = paths_of(data)
    assert set(found) == set(expected)
    for path, position in found.items():
        key, value = slice_of(text, position.key), slice_of(text, position.value)
        if isinstance(path[-1], str):
            assert list(tomllib.loads(f"{key} = 1")) == [path[-1]]
        if position.key != position.value or not isinstance(expected[path], dict | list):
            assert tomllib.loads(f"x = {value}")["x"] == expected[path]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# nothing\n",
        "a = 1",
        "a=1 # one\nb\t=\t2",
        "a.b.c = 1\na.b.d = 2",
        'a . "b.c" . \'d"\' = 1',
        '"" = 1\n"\\u00e9\\n" = 2',
        "[a.b]\nc = 1\n[a]\nd = 2",
        "[[a]]\nx = 1\n[[a]]\nx = 2\n[a.b]\ny = 3\n[[a.c]]\nz = 4\n[[a.c]]\nz = 5",
        "[ a . 'b' ] # header\nc = { d = [1, { e = 'x' }], f.g = 2 }",
        "a = [\n  1, # one\n  [2, 3],\n  # none\n]\nb = []\nc = {}\n",
        'a = """x""y"""\nb = """\n\\"""\\\n  z"""""\nc = \'\'\'a\'b\'\'\'\'\nd = \'\'\nf = ""',
        'a = "# = ] } , \\" \\\\"\nb = \'# = ] } \\\'',
        "a = 1979-05-27 07:32:00 # date\nb = [07:32:00, 1979-05-27]",
        "a = +1_000\nb = -1.5e-3\nc = true\nd = 0xff",
        "a = 1\r\nb = '''x\r\ny'''\r\n[c]\r\nd = 2\r\n",
        "a = 'tab\there\u2028and\x85there'\nb = 2",
        'true = 1\n1979-05-27 = 2\n3.14 = "pi"',
    ],
)
def test_every_form_of_toml(text: str) -> None:
    assert_agrees(text)


def test_lines_and_columns_of_keys_and_values() -> None:
    text = dedent("""\
        top = 1
        [tasks.headline]   # task
        source = { kind = "jsonl", path = 'a.jsonl' }
        prompts = [
          "one",
          "two",
        ]
        """)
    found = positions(text)
    assert found["top",].key == Span(1, 1, 3) and found["top",].value == Span(1, 7, 1)
    assert found["tasks",].key == Span(2, 2, 5)
    assert found["tasks", "headline"].key == found["tasks", "headline"].value == Span(2, 8, 8)
    assert found["tasks", "headline", "source", "path"].key == Span(3, 28, 4)
    assert found["tasks", "headline", "source", "path"].value == Span(3, 35, 9)
    assert found["tasks", "headline", "prompts"].value.line == 4
    assert found["tasks", "headline", "prompts", 1].value == Span(6, 3, 5)


def test_a_table_s_own_header_counts_more_than_a_mention_in_a_longer_one() -> None:
    found = positions("[a.b]\nx = 1\n[a]\ny = 2\n")
    assert found["a",].key.line == 3


def test_an_array_of_tables_stands_at_its_first_header_and_each_element_at_its_own() -> None:
    found = positions("[[a]]\n[[a]]\n")
    assert [found[path].key.line for path in (("a",), ("a", 0), ("a", 1))] == [1, 1, 2]


TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\r"), max_size=12)
SCALARS = st.one_of(TEXT, st.integers(-(2**40), 2**40), st.booleans(), st.floats(allow_nan=False, allow_infinity=False), st.dates())
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3), max_leaves=8)


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(TEXT, VALUES, max_size=4))
def test_generated_documents(data: dict) -> None:
    text = tomlkit.dumps(data)
    tomllib.loads(text)
    assert_agrees(text)


def _inline(value: object) -> object:
    if isinstance(value, dict):
        table = tomlkit.inline_table()
        table.update({key: _inline(item) for key, item in value.items()})
        return table
    return [_inline(item) for item in value] if isinstance(value, list) else value


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(TEXT, VALUES, min_size=1, max_size=4), st.sampled_from(["\n", "\r\n"]))
def test_generated_inline_tables_and_line_ends(data: dict, line_end: str) -> None:
    text = tomlkit.dumps({key: _inline(value) for key, value in data.items()}).replace("\n", line_end)
    assert_agrees(text)


@settings(max_examples=100, deadline=None)
@given(st.lists(TEXT, min_size=1, max_size=3), st.sampled_from(["basic", "literal", "multiline"]))
def test_generated_strings_of_every_form(values: list[str], form: str) -> None:
    table = tomlkit.document()
    for index, value in enumerate(values):
        plain = value if form != "literal" else "".join(c for c in value if c.isprintable() and c != "'")
        table[f"key{index}"] = tomlkit.string(plain, literal=form == "literal", multiline=form == "multiline")
    assert_agrees(tomlkit.dumps(table))
