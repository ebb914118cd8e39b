"""What docs/how-to/data.md writes into a task is what a task takes."""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest

from engine.core.part import with_tuples
from engine.spec.sections import Task

PAGE = (Path(__file__).parents[1] / "docs/how-to/data.md").read_text("utf-8")
BASE = {"source": {"kind": "jsonl", "path": "a"}, "teacher": {"kind": "gold", "column": "answer"}}


def statements() -> Iterator[dict[str, Any]]:
    """Every statement of the page's TOML as a table; one key stands there several times, so each is read by itself."""
    for block in re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL):
        if block.startswith("[tasks."):
            (found,) = tomllib.loads(block)["tasks"].values()
            yield found
            continue
        lines = ""
        for line in block.splitlines(keepends=True):
            lines += line
            try:
                found = tomllib.loads(lines)
            except tomllib.TOMLDecodeError:
                continue  # the statement goes on in the next line
            lines = ""
            if found:
                yield found
        assert not lines, f"this is no TOML: {lines}"


@pytest.mark.parametrize("given", list(statements()), ids=str)
def test_a_task_takes_it(given: dict[str, Any]):
    base = {"source": BASE["source"]} if "layout" in given else BASE
    task = Task.model_validate(with_tuples(base | given))
    assert all(getattr(task, key) != Task.model_validate(with_tuples(BASE)).model_dump().get(key) for key in given)


def kinds(annotation: Any) -> set[str]:
    """The kinds of every family in ANNOTATION."""
    own = {annotation.model_fields["kind"].default} if "kind" in getattr(annotation, "model_fields", {}) else set()
    return own.union(*(kinds(part) for part in get_args(annotation)))


def test_every_source_and_every_rule_is_on_the_page():
    named = kinds(Task.model_fields["source"].annotation) | kinds(Task.model_fields["cleaning"].annotation)
    assert {"hub", "overlap"} <= named
    assert {kind for kind in named if f'kind = "{kind}"' not in PAGE} == {"synthetic"}
