"""Prompt templates: Jinja in a sandbox, strict about fields, and deterministic."""

import re
from collections.abc import Mapping, Sequence

from jinja2 import StrictUndefined, Template, TemplateSyntaxError, Undefined, UndefinedError
from jinja2.exceptions import TemplateRuntimeError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from engine.errors import Location, UserError, did_you_mean
from stages.common.text import ascii_surrogates

_UNKNOWN_FIELD = re.compile(r"'(.+)' is undefined", re.DOTALL)


class Prompts:
    """The prompt templates of a task; raises UserError where one is no valid Jinja."""

    def __init__(self, sources: Sequence[str]) -> None:
        environment = _environment()
        self.sources = tuple(sources)
        self._templates = [_compile(environment, source, index) for index, source in enumerate(sources)]

    def __len__(self) -> int:
        return len(self.sources)

    def render(self, index: int, row: Mapping[str, object], where: Location) -> str:
        """Template INDEX over the fields of ROW; raises UserError, located at the row, where a field is unknown or an expression fails."""
        try:
            return self._templates[index].render(row)
        except UndefinedError as error:
            raise _unknown(error, index, row, where) from None
        except Exception as error:  # an expression of the user's template can raise anything: `{{ 1 / 0 }}`, `{{ text + 1 }}`
            what = f"prompts[{index}] cannot be rendered over this row: {ascii_surrogates(str(error)) or type(error).__name__}"
            raise UserError(what, where, f"the template is {ascii_surrogates(repr(self.sources[index]))}") from None


def _environment() -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(
        undefined=StrictUndefined, keep_trailing_newline=True, autoescape=False, finalize=_printable
    )
    # The two things in Jinja that answer differently each time they are asked.
    del environment.filters["random"]
    del environment.globals["lipsum"]
    return environment


def _printable(value: object) -> object:
    """VALUE, where printing it is no accident: objects would print their address in memory, and null would print `None`."""
    if value is None:
        raise TemplateRuntimeError('it prints a null; write {{ field or "" }} where a field may be null')
    if not isinstance(value, str | int | float | list | tuple | dict | Undefined):
        raise TemplateRuntimeError(f"it prints a {type(value).__name__}, not text; is `| join`, `| list` or a pair of brackets missing?")
    return value


def _compile(environment: ImmutableSandboxedEnvironment, source: str, index: int) -> Template:
    try:
        return environment.from_string(source)
    except TemplateSyntaxError as error:
        lines = source.splitlines()
        line = lines[error.lineno - 1] if error.lineno <= len(lines) else None
        where = Location(f"prompts[{index}]", error.lineno, None, line)
        raise UserError(f"prompts[{index}] is no valid Jinja template: {error.message}", where) from None


def _unknown(error: UndefinedError, index: int, row: Mapping[str, object], where: Location) -> UserError:
    found = _UNKNOWN_FIELD.fullmatch(error.message or "")
    if not found:
        return UserError(f"prompts[{index}] asks for something that this row lacks: {error.message}", where)
    return UserError(f"prompts[{index}] uses field '{found[1]}', which this row does not have", where, did_you_mean(found[1], row))
