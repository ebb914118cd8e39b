"""Prompt templates: strict, sandboxed, deterministic, and errors that say where."""

import pytest

from engine.core.errors import Location, UserError
from stages.rows.templates import Expression, Template

WHERE = Location("rows.jsonl", 7)


def render(template, **row):
    return Template(template, "prompts[0]").render(row, WHERE)


def problem(template, **row):
    with pytest.raises(UserError) as caught:
        render(template, **row)
    return caught.value.problems[0]


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("", ""),
        ("Say: {{ text }}\n", "Say: <b>&\n"),
        ("{{ text | upper }}{{ number + 1 }}", "<B>&4"),
        ("{% for item in items %}- {{ item }}\n{% endfor %}", "- a\n- b\n"),
        ("{{ items | map('upper') | join(', ') }}", "A, B"),
        ("{{ missing | default('none') }}", "none"),
        ("{{ empty or '' }}|{% if missing is defined %}x{% endif %}", "|"),
        ("{{ nested.key }}{{ nested['key'] }}", "vv"),
    ],
)
def test_rendered_text_is_exact(template, expected):
    assert render(template, text="<b>&", number=3, items=["a", "b"], empty=None, nested={"key": "v"}) == expected


def test_surrogates_pass_through():
    assert render("{{ text }}", text="\ud800") == "\ud800"


def test_an_unknown_field_is_named_with_row_and_nearest_column():
    found = problem("{{ titel }}", title="x", body="y")
    assert found.what == "prompts[0] uses field 'titel', which this row does not have"
    assert found.where == WHERE and found.hint == "did you mean 'title'?"


def test_an_unknown_field_inside_a_condition_is_no_silent_false():
    assert "uses field 'flag'" in problem("{% if flag %}x{% endif %}", text="x").what


def test_an_unknown_attribute_is_told():
    found = problem("{{ nested.kye }}", nested={"key": 1})
    assert "is undefined in this row" in found.what and "has no attribute 'kye'" in found.what
    assert found.hint == "the template is '{{ nested.kye }}'"


def test_a_syntax_error_shows_its_line():
    with pytest.raises(UserError) as caught:
        Template("first\n{{ text }\nlast", "prompts[1]")
    found = caught.value.problems[0]
    assert found.what.startswith("prompts[1] is not a valid Jinja template: ")
    assert (found.where.file, found.where.line, found.where.source) == ("prompts[1]", 2, "{{ text }")


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{{ 1 / number }}", "division by zero"),
        ("{{ text + 1 }}", "cannot be rendered"),
        ("{{ empty }}", "the value is null"),
        ("{{ text.upper }}", "not text"),
        ("{{ items | map('upper') }}", "prints a generator"),
        ("{{ text.__class__.__mro__ }}", "unsafe"),
        ("{{ items.append('c') }}", "append"),
        ("{% include 'other' %}", "no loader"),
        ("{{ range(10000000) | list }}", "Range too big"),
    ],
)
def test_what_cannot_be_rendered_is_the_users_error(template, said):
    found = problem(template, text="a", number=0, items=["a"], empty=None)
    assert said in str(found) and found.where == WHERE


@pytest.mark.parametrize("template", ["{{ items | random }}", "{% for item in items | random %}{% endfor %}"])
def test_there_is_no_chance_in_templates(template):
    with pytest.raises(UserError, match="random"):
        render(template, items=[1, 2])


def test_there_is_no_lorem_ipsum():
    assert "lipsum" in problem("{{ lipsum() }}", text="x").what


@pytest.mark.parametrize(
    ("template", "required", "optional"),
    [
        ("{{ a }} {{ b.c | upper }}", "a b", ""),
        ("{{ a | default('x') }}{{ b | d('y') }}", "", "a b"),
        ("{% if a %}{{ a }}{% endif %}{{ b }}", "b", "a"),
        ("{{ a or b }}{{ c }}", "c", "a b"),
        ("{{ a if b else c }}", "a c", "b"),
        ("{% if a is defined %}{{ a }}{% endif %}", "", "a"),
        ("{% for x in a %}{{ x }}{{ loop.index }}{% endfor %}{% set y = 1 %}{{ y }}{{ range(2) | list }}", "a", ""),
        ("none at all", "", ""),
    ],
)
def test_a_template_says_which_fields_it_needs_and_which_may_be_missing(template, required, optional):
    made = Template(template, "x")
    assert made.required == frozenset(required.split()) and made.fields == frozenset((required + " " + optional).split())


@pytest.mark.parametrize("value", [None, "", " \n\u2003", [], {}])
def test_an_empty_field_is_found_where_it_is_needed(value):
    row = {"a": value, "b": 0, "c": False, "d": [""]}
    assert Template("{{ b }}{{ a }}", "x").empty_field(row) == "a"
    assert Template("{{ a or b }}{{ c }}{{ d }}", "x").empty_field(row) is None
    assert Template("{{ missing }}", "x").empty_field(row) is None, "a missing one is told while it is rendered"


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("year >= 2019 and lang == 'en'", True),
        ("items[0].name", "first"),
        ("items | length", 1),
        ("text", "a"),
        ("'a' in text or missing", True),
        ("empty", None),
        ("{'a': year}", {"a": 2020}),
    ],
)
def test_expressions_give_values(expression, value):
    row = {"year": 2020, "lang": "en", "items": [{"name": "first"}], "text": "a", "empty": None}
    assert Expression(expression, "where").value(row, WHERE) == value


@pytest.mark.parametrize(
    ("expression", "said"),
    [
        ("yaer > 1", "did you mean 'year'?"),
        ("missing", "'missing', which this row does not have"),
        ("year / 0", "division by zero"),
        ("text > year", "cannot be computed"),
        ("text.__class__.__base__", "unsafe"),
        ("items.pop()", "pop"),
        ("items | random", "random"),
        ("nested.key", "no attribute 'key'"),
    ],
)
def test_what_an_expression_cannot_say_is_the_users_error(expression, said):
    with pytest.raises(UserError) as caught:
        Expression(expression, "where").value({"year": 1, "text": "a", "items": [1], "nested": {}}, WHERE)
    assert said in str(caught.value) and caught.value.problems[0].what.startswith("where ")


@pytest.mark.parametrize("expression", ["a b", "a }} {{ b", "(a", "", "{% if a %}"])
def test_one_expression_is_expected(expression):
    with pytest.raises(UserError, match="not a valid Jinja expression"):
        Expression(expression, "where")
