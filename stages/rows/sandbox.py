"""Jinja's sandbox with bounds: a template ends, in bounded memory, whatever its author or a model's publisher wrote into it.

Jinja's own sandbox keeps templates from Python's internals, not from loops within loops or text that doubles with every turn of a loop.
"""

import re
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import wraps
from time import monotonic
from typing import Any

from jinja2 import nodes
from jinja2.compiler import CodeGenerator, Frame
from jinja2.exceptions import TemplateRuntimeError
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment

STEPS = 1_000_000
"""Turns of loops and calls of macros and functions in one rendering: the same on every machine."""
CHARACTERS = 2**24
"""Characters of text, items of lists and bits of numbers that one rendering makes."""
SECONDS = 30.0
"""The last resort, for steps that are few and slow."""

_WIDTH = re.compile(r"[%:][^A-Za-z%:\s{}]*?(\d{4,})")
"""A width of four or more digits in a format such as `%1000d` or `{:>1000}`."""


class _Budget(threading.local):
    """What is left for the rendering that runs in this thread."""

    steps = characters = deadline = float("inf")

    def step(self) -> None:
        self.steps -= 1
        if self.steps < 0:
            raise TemplateRuntimeError(f"it makes more than {STEPS:,} turns of loops and calls for one row")
        if monotonic() > self.deadline:
            raise TemplateRuntimeError(f"it takes more than {SECONDS:.0f} s for one row")

    def write(self, size: int) -> None:
        self.characters -= size
        if self.characters < 0:
            raise TemplateRuntimeError(f"it makes more than {CHARACTERS:,} characters for one row")


class _Bounding(CodeGenerator):
    """Compiles loops over `environment.turns(…)`, and `~` as `environment.joined(…)`."""

    def visit_Template(self, node: nodes.Template, frame: Frame | None = None) -> None:
        assert isinstance(self.environment, BoundedEnvironment)
        self.environment.begin()  # constants are computed now
        super().visit_Template(node, frame)

    def visit_For(self, node: nodes.For, frame: Frame) -> None:
        constant = sum(len(text.data) for part in node.body for text in _constants(part))
        node.iter = _call("turns", [node.iter, nodes.Const(constant)], node)  # type: ignore[list-item]  # which declares a node
        super().visit_For(node, frame)

    def visit_Concat(self, node: nodes.Concat, frame: Frame) -> None:
        self.visit(_call("joined", node.nodes, node), frame)


def _constants(node: nodes.Node) -> Iterator[nodes.TemplateData]:
    if isinstance(node, nodes.TemplateData):
        yield node
    yield from node.find_all(nodes.TemplateData)


def _call(name: str, arguments: list[nodes.Expr], at: nodes.Node) -> nodes.Call:
    return nodes.Call(nodes.EnvironmentAttribute(name), arguments, [], None, None, lineno=at.lineno)


class BoundedEnvironment(ImmutableSandboxedEnvironment):
    """A sandbox in which a rendering, after `begin`, raises TemplateRuntimeError beyond STEPS, CHARACTERS or SECONDS.

    FINALIZE is applied to each printed value, as in Jinja, and FILTERS are added to Jinja's or replace them; the other arguments are
    those of a Jinja environment.
    """

    code_generator_class = _Bounding
    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def __init__(
        self, finalize: Callable[[object], object] | None = None, filters: Mapping[str, Callable[..., Any]] | None = None, **settings: Any
    ) -> None:
        self._budget = _Budget()

        def counted(value: object) -> object:
            self._budget.write(_printed(value))
            return finalize(value) if finalize else value

        super().__init__(finalize=counted, **settings)
        self.filters = {name: self._bounded(name, function) for name, function in {**self.filters, **(filters or {})}.items()}

    def begin(self) -> None:
        """Start a rendering, or the evaluation of an expression, in this thread."""
        self._budget.steps, self._budget.characters, self._budget.deadline = STEPS, CHARACTERS, monotonic() + SECONDS

    def turns(self, items: Iterable[Any], constant: int) -> Iterator[Any]:
        """ITEMS of a loop whose body has CONSTANT characters of its own."""
        for item in items:
            self._budget.step()
            self._budget.write(constant)
            yield item

    def joined(self, *values: object) -> str:
        """The texts of VALUES, one after another."""
        self._budget.write(_printed(values))
        return "".join(map(str, values))

    def call(self, context: Context, function: Any, /, *args: Any, **kwargs: Any) -> Any:
        """As the sandbox calls it, counted."""
        self._budget.step()
        method = getattr(function, "__wrapped__", function)  # the sandbox wraps `format`
        if (bound := getattr(method, "__self__", None)) is not None:
            self._budget.write(_size_of_call(method.__name__, (bound, *args, *kwargs.values())))
        made = super().call(context, function, *args, **kwargs)
        self._budget.write(_length(made))
        return made

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """As Jinja computes it, unless the result is too large."""
        self._budget.write(_size_of_operation(operator, left, right))
        return super().call_binop(context, operator, left, right)

    def _bounded(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """A filter whose results are counted."""

        @wraps(function)  # with the attribute by which Jinja passes a context or an environment first
        def bounded(*args: Any, **kwargs: Any) -> Any:
            given = args[1:] if hasattr(function, "jinja_pass_arg") else args
            self._budget.write(_size_of_call(name, (*given, *kwargs.values())))
            made = function(*args, **kwargs)
            self._budget.write(_length(made))
            return made

        return bounded


def _length(value: object) -> int:
    return len(value) if isinstance(value, str | list | tuple | dict) else 0


def _printed(value: object, known: dict[int, int] | None = None) -> int:
    """About the characters of VALUE as text; lists may hold one another many times over, so KNOWN has the sizes by address."""
    if isinstance(value, str):
        return len(value)
    if not isinstance(value, list | tuple | dict):
        return 1
    known = {} if known is None else known
    if id(value) not in known:
        held = [*value, *value.values()] if isinstance(value, dict) else value
        known[id(value)] = 1 + sum(_printed(item, known) for item in held)
    return known[id(value)]


def _size_of_call(name: str, values: tuple[Any, ...]) -> int:
    """A bound of what a method or filter makes of VALUES, the first of which is its text; 0 if that is not much larger than they are."""
    match name, values:
        case "replace", (str(text), str(old), str(new), *_):
            return text.count(old) * len(new)
        case "join", (str(between), list(items) | tuple(items), *_):
            return len(between) * len(items) + _printed(items)
        case "join", (list(items) | tuple(items), str(between), *_):
            return len(between) * len(items) + _printed(items)
        case "format", (str(pattern), *items):
            return _size_of_format(pattern, tuple(items))
        case "tojson", (items, *settings):
            indents = [one for one in settings if isinstance(one, int) and not isinstance(one, bool)]
            return _printed(items) * (1 + max(indents, default=0))
        case "join" | "string", (list(items) | tuple(items) | dict(items), *_):
            return _printed(items)
        case "indent", (str(text), int(width), *_):
            return (text.count("\n") + 1) * max(width, 0)
        case "indent", (str(text), str(before), *_):
            return (text.count("\n") + 1) * len(before)
        case "expandtabs", (str(text), int(width), *_):
            return text.count("\t") * max(width, 0)
        case "center" | "ljust" | "rjust" | "zfill" | "slice" | "batch", (_, int(width), *_):
            return max(width, 0)
        case "to_bytes", (_, int(length), *_):
            return max(length, 0)
    return 0


def _size_of_format(pattern: str, values: object) -> int:
    """A bound of the text that a pattern such as `%10d` or `{:>10}` makes of VALUES."""
    fields = pattern.count("%") + pattern.count("{")
    return len(pattern) + fields * _printed(values) + sum(map(int, _WIDTH.findall(pattern)))


def _size_of_operation(operator: str, left: Any, right: Any) -> int:
    """Characters, items or bits of `left operator right`; 0 if it makes neither text nor a list nor a long number."""
    match operator, left, right:
        case "+", (str() | list() | tuple()), (str() | list() | tuple()):
            return len(left) + len(right)
        case "*", (str() | list() | tuple()), int():
            return len(left) * max(right, 0)
        case "*", int(), (str() | list() | tuple()):
            return max(left, 0) * len(right)
        case "*", int(), int():
            return left.bit_length() + right.bit_length()
        case "**", int(), int():
            return left.bit_length() * max(right, 0)
        case "%", str(), _:
            return _size_of_format(left, right)
    return 0


def failing_line(error: BaseException) -> int | None:
    """The line, from 1, of the template in which ERROR was raised; None if it is unknown."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename in ("<template>", "<unknown>")]
    return lines[-1] if lines else None
