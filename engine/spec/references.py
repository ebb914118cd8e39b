"""Checks of references in a spec: names of tasks, paths of files, and templates that must parse."""

import re
from collections.abc import Iterator
from functools import cache
from posixpath import isabs, normpath

from engine.core.errors import Problem, did_you_mean
from engine.spec.positions import Key
from engine.spec.tree import Node

_TASK_LISTS: tuple[Key, ...] = (("mixture", "tasks"), ("evaluation", "tasks"), ("evaluation", "held_out"), ("model", "tokenizer", "tasks"))


def reference_problems(document: Node) -> Iterator[tuple[Key, Problem]]:
    """Every invalid reference in DOCUMENT with its path; values of the wrong type are left to the validation of the sections."""
    yield from _unknown_tasks(document)
    yield from _escaping_paths(document)
    yield from _broken_templates(document)


def _texts(document: Node, path: Key) -> Iterator[tuple[Key, Node, str]]:
    """The strings at PATH, which holds one or an array of them, each with its path and node."""
    node = _exactly(document, path)
    if node and isinstance(node.content, str):
        yield path, node, node.content
    for index, item in enumerate(node.content if node and isinstance(node.content, tuple) else ()):
        if isinstance(item.content, str):
            yield (*path, index), item, item.content


def _exactly(document: Node, path: Key) -> Node | None:
    node: Node | None = document
    for key in path:
        node = node.child(key) if node else None
    return node


def _tasks(document: Node) -> tuple[str, ...]:
    tasks = document.child("tasks")
    return tuple(tasks.content) if tasks and isinstance(tasks.content, dict) else ()


def _unknown_tasks(document: Node) -> Iterator[tuple[Key, Problem]]:
    known = _tasks(document)
    for path in _TASK_LISTS if known else ():
        for place, node, name in _texts(document, path):
            if name not in known:
                yield place, Problem(f"this spec has no task '{name}'", node.value, did_you_mean(name, known))


def _escaping_paths(document: Node) -> Iterator[tuple[Key, Problem]]:
    """A problem for each relative path out of the workspace: it would refer to a different file on every machine."""
    tasks = _exactly(document, ("tasks",))
    named = [(place, node) for place, node in tasks.walk() if place[-1] in ("path", "file")] if tasks else []
    judge = [("evaluation", chat, key, "file") for chat in ("judge", "versus") for key in ("prompt", "system")]
    model = [("model", key) for key in ("path", "gguf", "adapter")]
    places = [*model, ("benchmarks", "folder"), *judge, *(("tasks", *place) for place, _ in named)]
    for path in dict.fromkeys(places):
        for place, node, given in _texts(document, path):
            if not isabs(given) and normpath(given).split("/", 1)[0] == "..":
                hint = "paths are relative to the workspace; use an absolute path for a file outside it"
                yield place, Problem(f"'{given}' is outside the workspace", node.value, hint)


def _broken_templates(document: Node) -> Iterator[tuple[Key, Problem]]:
    templates = [("tasks", task, key) for task in _tasks(document) for key in ("prompts", "system")]
    for path in (*templates, *(("evaluation", chat, key) for chat in ("judge", "versus") for key in ("prompt", "system"))):
        for place, node, template in _texts(document, path):
            if "{" in template and (why := template_error(template)):
                yield place, Problem(f"invalid Jinja template: {why}", node.value)
    for task in _tasks(document):
        for place, node, expression in _texts(document, ("tasks", task, "source", "where")):
            if why := _expression_error(expression):
                yield place, Problem(f"invalid Jinja expression: {why}", node.value)


# `{{ column }}` and no other Jinja syntax: it is known to parse without importing Jinja.
PLAIN_TEMPLATE = re.compile(r"(?:[^{}%#]|\{\{ ?(?!(?:true|false|none|not|and|or|if|else|in|is)\b)[a-z_][a-z0-9_]* ?\}\})*")

NAMES = re.compile(r"\{\{ ?([a-z_][a-z0-9_]*) ?\}\}")
"""Matches the columns of a plain template."""


@cache
def template_error(template: str) -> str | None:
    """Jinja's message about a template that does not parse; None if it parses."""
    if PLAIN_TEMPLATE.fullmatch(template):
        return None
    from jinja2 import Environment, TemplateSyntaxError

    try:
        Environment().parse(template)
    except TemplateSyntaxError as error:
        return f"{(error.message or 'syntax error').rstrip('.')} (line {error.lineno} of the template)"
    return None


@cache
def _expression_error(expression: str) -> str | None:
    """Jinja's message about an expression that does not parse; None if it parses."""
    from jinja2 import Environment, TemplateSyntaxError

    try:
        Environment().compile_expression(expression)
    except TemplateSyntaxError as error:
        return (error.message or "syntax error").rstrip(".")
    return None
