"""Chat templates rendered as transformers does, in Jinja's sandbox, but without access to the clock.

The environment of templates: https://huggingface.co/docs/transformers/chat_templating_writing
"""

import json
from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any, NoReturn

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.runtime import Macro
from jinja2.utils import Namespace

from engine.core.errors import Location, UserError
from stages.rows.sandbox import BoundedEnvironment, failing_line
from stages.rows.text import ascii_surrogates

# Two private-use characters mark where `{% generation %}` begins and ends; offsets in rendered blocks, which transformers uses, are
# wrong inside macros.
BEGIN, END = "\U000f0000", "\U000f0001"


class Rewritten(UserError):
    """The template renders an earlier message differently once later ones follow."""


class ChatTemplate:
    """A compiled template; raises UserError if it is not valid Jinja."""

    def __init__(self, source: str, name: str, variables: Mapping[str, Any], today: str | None) -> None:
        self.name = name
        self._lines = source.splitlines()
        self._variables = dict(variables)
        self._environment = _environment(today)
        self._template = _compile(self._environment, source, name)

    def render(
        self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]], where: Location, prompt: bool = False
    ) -> str:
        """Render MESSAGES to text with generation blocks marked; PROMPT adds the header of the next answer.

        Raises UserError, located at WHERE, if the template raises.
        """
        values = {**self._variables, "messages": [dict(message) for message in messages], "add_generation_prompt": prompt}
        self._environment.begin()
        try:
            return self._template.render(**values, tools=list(tools) or None, documents=None)
        except UserError as error:
            raise UserError(error.problems[0].what, where, error.problems[0].hint) from None
        except Exception as error:  # a template can raise anything: raise_exception, a missing key, `1 / 0`
            what = f"{self.name} fails on this row: {ascii_surrogates(str(error)) or type(error).__name__}"
            line = failing_line(error)
            shown = f"; line {line} of the template is {ascii_surrogates(repr(self._lines[line - 1].strip()))}" if line else ""
            raise UserError(what, where, f"fix the row or the template{shown}") from None


def _compile(environment: BoundedEnvironment, source: str, name: str) -> jinja2.Template:
    try:
        return environment.from_string(source)
    except jinja2.TemplateSyntaxError as error:
        lines = source.splitlines()
        line = lines[error.lineno - 1] if error.lineno <= len(lines) else None
        raise UserError(f"{name} is not a valid chat template: {error.message}", Location(name, error.lineno, None, line)) from None


def _environment(today: str | None) -> BoundedEnvironment:
    extensions = [_Generation, loopcontrols]
    environment = BoundedEnvironment(filters={"tojson": _tojson}, trim_blocks=True, lstrip_blocks=True, extensions=extensions)
    environment.globals |= {"raise_exception": _raise, "strftime_now": _clock(today), "namespace": _Namespace}
    # Nondeterministic globals.
    del environment.filters["random"], environment.globals["lipsum"]
    return environment


class _Generation(Extension):
    """`{% generation %}`: text that the assistant generates."""

    tags = {"generation"}  # noqa: RUF012 (as jinja2 declares it)

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_marked"), [], [], body).set_lineno(line)

    def _marked(self, caller: Macro) -> str:
        return f"{BEGIN}{caller()}{END}"


class _Namespace(Namespace):
    """Jinja's namespace without names that begin with an underscore, which could reach Python internals."""

    def __setitem__(self, name: str, value: Any) -> None:
        if name.startswith("_"):
            _raise(f"a namespace cannot hold {name!r}")
        super().__setitem__(name, value)


def _tojson(value: Any, ensure_ascii: bool = False, indent: int | None = None, separators: Any = None, sort_keys: bool = False) -> str:
    """As in transformers: Jinja's own `tojson` escapes HTML."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def _clock(today: str | None) -> Any:
    def strftime_now(pattern: str) -> str:
        if today is None:
            what = "the chat template uses today's date, so its tokens would change every day"
            raise UserError(what, hint='set a fixed date: tokenization.format.date = "2024-07-26"')
        return date.fromisoformat(today).strftime(pattern)

    return strftime_now
