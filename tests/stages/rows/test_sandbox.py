"""The bounds of templates: each way to make endless work or text ends with an error at its line, and all others render as in Jinja."""

import re
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jinja2 import StrictUndefined
from jinja2.exceptions import TemplateRuntimeError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from engine.core.errors import Location, UserError
from stages.chat.templates import ChatTemplate
from stages.rows import sandbox
from stages.rows.sandbox import BoundedEnvironment
from stages.rows.templates import Expression, Template

WHERE = Location("rows.jsonl", 7)
GROWING = [
    "ns.x ~ ns.x",
    "ns.x + ns.x",
    "ns.x * 2",
    "[ns.x, ns.x] | join",
    "[ns.x, ns.x] | join(ns.x)",
    "ns.x.join([ns.x, ns.x])",
    "ns.x | replace('a', ns.x)",
    "ns.x.replace('a', ns.x)",
    "'%s%s' | format(ns.x, ns.x)",
    "'%s%s' % (ns.x, ns.x)",
    "'{0}{0}'.format(ns.x)",
    "(ns.x ~ ns.x) | upper",
    "[ns.x, ns.x] | string",
    "{'a': ns.x, 'b': ns.x} | tojson",
]
LARGE = [
    "'x' * 10**10",
    "10 ** (10 ** 10)",
    "'x' | center(10**10)",
    "'x'.ljust(10**10)",
    "'%10000000000d' % 1",
    "'%10000000000d' | format(1)",
    "'{:>10000000000}'.format(1)",
    "'a\tb'.expandtabs(10**10)",
    "('a\n' * 1000) | indent(10**9)",
    "[1] | tojson(indent=10**10)",
]


@pytest.mark.parametrize("value", GROWING)
def test_text_that_doubles_with_every_turn_ends_at_its_line(value):
    source = f"{{% set ns = namespace(x='ab') %}}\n{{% for i in range(99) %}}\n{{% set ns.x = {value} %}}{{% endfor %}}"
    with pytest.raises(UserError) as caught:
        Template(source, "prompts[0]").render({}, WHERE)
    assert "more than 16,777,216 characters" in caught.value.problems[0].what and caught.value.problems[0].where == WHERE
    assert caught.value.problems[0].hint.startswith("line 3 of the template is ")


@pytest.mark.parametrize("value", LARGE)
def test_one_large_value_is_refused_before_it_is_made(value):
    tracemalloc.start()
    try:
        with pytest.raises(UserError, match="more than 16,777,216 characters"):
            Expression(value, "where").value({}, WHERE)
        assert tracemalloc.get_traced_memory()[1] < 2**26
    finally:
        tracemalloc.stop()


def test_lists_that_hold_one_another_are_not_printed():
    source = "{% set ns = namespace(x=[1]) %}{% for i in range(99) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x }}"
    with pytest.raises(UserError, match="more than 16,777,216 characters"):
        Template(source, "prompts[0]").render({}, WHERE)


@pytest.mark.parametrize(
    "source",
    [
        "{% for a in range(99999) %}\n{% for b in range(99999) %}{% endfor %}{% endfor %}",
        "{% macro f(n) %}\n{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(60) }}",
    ],
    ids=["loops within loops", "macros that call themselves twice"],
)
def test_endless_turns_and_calls_end_at_their_line(source, monkeypatch):
    monkeypatch.setattr(sandbox, "STEPS", 10_000)
    with pytest.raises(UserError) as caught:
        ChatTemplate(source, "the chat template", {}, None).render([], [], WHERE)
    assert re.search("more than 10,000 turns of loops and calls", caught.value.problems[0].what)
    assert "; line 2 of the template is " in caught.value.problems[0].hint


def test_text_of_a_loop_and_of_blocks_counts():
    for body in ("y" * 2000, "{{ text }}", "{% set part %}{{ text }}{% endset %}"):
        with pytest.raises(UserError, match="more than 16,777,216 characters"):
            Template(f"{{% for a in range(99999) %}}{body}{{% endfor %}}", "p").render({"text": "x" * 2000}, WHERE)


def test_every_row_has_the_whole_budget(monkeypatch):
    monkeypatch.setattr(sandbox, "STEPS", 100)
    template = Template("{% for a in items %}{{ a }}{% endfor %}", "p")
    for _ in range(5):
        assert template.render({"items": ["x"] * 90}, WHERE) == "x" * 90
    with pytest.raises(UserError, match="more than 100 turns"):
        template.render({"items": ["x"] * 101}, WHERE)


def test_slow_steps_end_after_a_time(monkeypatch):
    monkeypatch.setattr(sandbox, "SECONDS", 0.0)
    with pytest.raises(UserError, match="takes more than 0 s for one row"):
        Template("{% for a in range(9) %}{% endfor %}", "p").render({}, WHERE)


PIECES = st.sampled_from(
    [
        "{{ name }}",
        "{{ name ~ ': ' ~ number ~ missing }}",
        "{{ name ~ items[0] }}",
        "{% for x in items %}{{ loop.index }}/{{ loop.length }}{{ x }}{% if not loop.last %}, {% endif %}{% endfor %}",
        "{% for x in items if x != 'b' %}{{ x }}{% else %}none{% endfor %}",
        "{% for key, value in table.items() recursive %}{{ key }}{% if value is mapping %}{{ loop(value.items()) }}{% endif %}{% endfor %}",
        "{% macro row(x, sep='-') %}{{ sep }}{{ x }}{% endmacro %}{{ row(name) }}{{ row(number, sep='+') }}",
        "{% set total = namespace(n=0) %}{% for x in range(number) %}{% set total.n = total.n + x * 2 %}{% endfor %}{{ total.n }}",
        "{{ items | map('upper') | join(', ') }}{{ name | replace('a', 'bb') | indent(2) | center(20) }}",
        "{{ '%s=%05d' % (name, number) }}{{ '{} {:>4}'.format(name, number) }}{{ '%s' | format(name) }}",
        "{{ items[::-1] | tojson }}{{ table | dictsort }}{{ number ** 2 }}{{ 1 / number }}",
        "{% filter upper %}{{ name }}x{% endfilter %}{{ undefined_name }}",
        "{% for i in range(3) %}{% for j in items %}{{ loop.revindex }}{{ i ~ j }}{% endfor %}{% endfor %}",
    ]
)
ROW = st.fixed_dictionaries(
    {
        "name": st.text(max_size=8),
        "number": st.integers(0, 9),
        "items": st.lists(st.sampled_from("abc"), max_size=3),
        "table": st.dictionaries(st.sampled_from("xyz"), st.one_of(st.integers(), st.just({"x": 1})), max_size=3),
    }
)


@given(st.lists(PIECES, min_size=1, max_size=4).map("".join), ROW)
def test_within_its_bounds_a_template_renders_as_in_jinja(source, row):
    def rendered(environment):
        try:
            return environment.from_string(source).render(row)
        except Exception as error:
            return type(error).__name__, str(error)

    settings = {"undefined": StrictUndefined, "keep_trailing_newline": True}
    assert rendered(BoundedEnvironment(**settings)) == rendered(ImmutableSandboxedEnvironment(**settings))


def test_constants_are_bounded_when_a_template_is_compiled():
    with pytest.raises(TemplateRuntimeError, match="characters"):
        BoundedEnvironment().from_string("{{ 'x' | center(10 ** 10) }}").render()
