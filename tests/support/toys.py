"""Specs of toy experiments as text: a tiny model, one task with gold answers, and a training; a test says what is otherwise."""

import json
from collections.abc import Mapping

GOLD = 'source = { kind = "jsonl", path = "a.jsonl" }\nprompts = ["{{ word }}"]\nteacher = { kind = "gold", column = "word" }'
"""A task whose rows have one column, `word`."""


def model(kind: str = "llama", length: int = 128, name: str = "tiny") -> str:
    """The section of a model from scratch."""
    return f'name = "{name}"\narchitecture = {{ kind = "{kind}", hidden_size = 16, layers = 1, heads = 2, max_length = {length} }}'


def toy(
    tasks: Mapping[str, str] = {"a": GOLD},
    name: str = "toy",
    base: str = model(),
    method: str = '"full"',
    tokenization: str = "",
    more: str = "",
) -> str:
    """A spec that trains BASE, the lines of `[model]`, on all TASKS, the lines of each; MORE stands behind the lines of `[training]`."""
    sections = {
        "experiment": f'name = "{name}"',
        "model": base,
        **{f"tasks.{task}": lines for task, lines in tasks.items()},
        **({"tokenization": tokenization} if tokenization else {}),
        "mixture": f"tasks = {json.dumps(list(tasks))}",
        "training": f"method = {method}\n{more}",
    }
    return "\n".join(f"[{section}]\n{lines}\n" for section, lines in sections.items())
