"""Jinja templates and expressions over a row's fields: sandboxed, strict about undefined fields, and deterministic."""

import re
from collections.abc import Callable, Iterator, Mapping
from functools import cache

from jinja2 import StrictUndefined, TemplateSyntaxError, Undefined, UndefinedError, meta, nodes
from jinja2.exceptions import TemplateRuntimeError
from jinja2.parser import Parser

from engine.core.errors import Location, UserError, did_you_mean
from stages.rows.sandbox import BoundedEnvironment, failing_line
from stages.rows.text import ascii_surrogates

Row = Mapping[str, object]

_UNKNOWN_FIELD = re.compile(r"'(.+)' is undefined", re.DOTALL)


Lacking = Callable[[str, Row], str | None]
"""Writes a hint for a row that lacks a field, from both."""


class Template:
    """A template, called NAME in messages; raises UserError if it is not valid Jinja. LACKING writes the hint for rows without a field."""

    def __init__(self, source: str, name: str, lacking: Lacking = did_you_mean) -> None:
        self.source, self.name, self.lacking = source, name, lacking
        try:
            tree = _environment().parse(source)
            # Jinja detects unknown filters only during compilation.
            self._template = _environment().from_string(source)
        except TemplateSyntaxError as error:
            raise _broken(error, source, name, "template") from None
        self.fields = fields_of(tree)
        self.required = self.fields - guarded_fields(tree)
        """Fields that the template needs: it does not handle their absence or emptiness."""

    def render(self, row: Row, where: Location) -> str:
        """The text for the fields of ROW; raises UserError, located at the row, if a field is undefined or an expression fails."""
        return str(_evaluated(lambda: self._template.render(row), self, row, where))

    def empty_field(self, row: Row) -> str | None:
        """The first field, by name, that the template needs and that is empty in ROW (see `is_empty`)."""
        return next((name for name in sorted(self.required) if name in row and is_empty(row[name])), None)


class Expression:
    """An expression, such as a filter over columns, called NAME in messages; raises UserError if it is not valid Jinja.

    LACKING writes the hint for rows without a field."""

    def __init__(self, source: str, name: str, lacking: Lacking = did_you_mean) -> None:
        self.source, self.name, self.lacking = source, name, lacking
        try:
            self.fields = fields_of(_parsed_expression(source))
            self._value = _environment().compile_expression(source, undefined_to_none=False)
        except TemplateSyntaxError as error:
            raise _broken(error, source, name, "expression") from None
        except ValueError as error:  # a constant that Python cannot print, such as 10 ** 5000
            raise UserError(f"{name} cannot be computed: {error}", Location(name)) from None

    def value(self, row: Row, where: Location) -> object:
        """The value for the fields of ROW; raises UserError, located at the row, if a field is undefined or the expression fails."""
        return _evaluated(lambda: _defined(self._value(row)), self, row, where)


def is_empty(value: object) -> bool:
    """Whether a value is empty: null, blank text, an empty list or object."""
    return value is None or value in ([], {}, ()) or (isinstance(value, str) and not value.strip())


def fields_of(tree: nodes.Template) -> frozenset[str]:
    """All fields of a row that a template reads."""
    return frozenset(meta.find_undeclared_variables(tree) - set(_environment().globals))


def guarded_fields(tree: nodes.Template) -> frozenset[str]:
    """Fields whose absence a template handles: in a condition, a test, `or`, or before `default`."""
    return frozenset(name.name for guard in _guards(tree) for name in _names(guard))


def _guards(tree: nodes.Template) -> Iterator[nodes.Node]:
    yield from (choice.test for choice in tree.find_all(nodes.If))
    yield from (choice.test for choice in tree.find_all(nodes.CondExpr))
    yield from tree.find_all((nodes.Or, nodes.And, nodes.Not, nodes.Test))
    yield from (found for found in tree.find_all(nodes.Filter) if found.name in ("default", "d"))


def _names(node: nodes.Node) -> Iterator[nodes.Name]:
    if isinstance(node, nodes.Name):
        yield node
    yield from node.find_all(nodes.Name)


def _evaluated(compute: Callable[[], object], asked: Template | Expression, row: Row, where: Location) -> object:
    _environment().begin()
    try:
        return compute()
    except UndefinedError as error:
        raise _unknown(error, asked, row, where) from None
    except Exception as error:  # expressions can raise anything: `{{ 1 / 0 }}`, `{{ text + 1 }}`
        verb = "rendered" if isinstance(asked, Template) else "computed"
        what = f"{asked.name} cannot be {verb} for this row: {ascii_surrogates(str(error)) or type(error).__name__}"
        raise UserError(what, where, _shown(asked, error)) from None


def _shown(asked: Template | Expression, error: Exception) -> str:
    """The expression or template, or of one with several lines that in which ERROR was raised."""
    lines, line = asked.source.splitlines(), failing_line(error)
    if isinstance(asked, Template) and len(lines) > 1 and line is not None:
        return f"line {line} of the template is {ascii_surrogates(repr(lines[line - 1].strip()))}"
    sort = "template" if isinstance(asked, Template) else "expression"
    return f"the {sort} is {ascii_surrogates(repr(asked.source))}"


def _defined(value: object) -> object:
    if isinstance(value, Undefined):
        str(value)  # a strict undefined value raises
    return value


@cache
def _environment() -> BoundedEnvironment:
    environment = BoundedEnvironment(_printable, undefined=StrictUndefined, keep_trailing_newline=True, autoescape=False)
    # Jinja's nondeterministic globals and filters.
    del environment.filters["random"]
    del environment.globals["lipsum"]
    return environment


def _printable(value: object) -> object:
    """VALUE, if printing it is meaningful; raises for objects, which would print a memory address, and null, which would print `None`."""
    if value is None:
        raise TemplateRuntimeError('the value is null; write {{ field or "" }} if a field may be null')
    if not isinstance(value, str | int | float | list | tuple | dict | Undefined):
        raise TemplateRuntimeError(f"it prints a {type(value).__name__}, not text; `| join`, `| list` or brackets may be missing")
    return value


def _parsed_expression(source: str) -> nodes.Template:
    """SOURCE as a template that prints its value."""
    parser = Parser(_environment(), source, state="variable")
    expression = parser.parse_expression()
    if not parser.stream.eos:
        raise TemplateSyntaxError("unexpected text after the expression", parser.stream.current.lineno)
    tree = nodes.Template([nodes.Output([expression], lineno=1)], lineno=1)
    tree.set_environment(_environment())
    return tree


def _broken(error: TemplateSyntaxError, source: str, name: str, sort: str) -> UserError:
    lines = source.splitlines()
    line = lines[error.lineno - 1] if error.lineno <= len(lines) else None
    return UserError(f"{name} is not a valid Jinja {sort}: {error.message}", Location(name, error.lineno, None, line))


def _unknown(error: UndefinedError, asked: Template | Expression, row: Row, where: Location) -> UserError:
    found = _UNKNOWN_FIELD.fullmatch(error.message or "")
    if not found:
        return UserError(f"{asked.name} uses a value that is undefined in this row: {error.message}", where, _shown(asked, error))
    return UserError(f"{asked.name} uses field '{found[1]}', which this row does not have", where, asked.lacking(found[1], row))
