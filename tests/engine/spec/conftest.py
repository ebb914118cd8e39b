"""A small valid spec, and a workspace to write specs into."""

from collections.abc import Callable
from pathlib import Path
from textwrap import dedent

import pytest

from engine.core.errors import Problem, UserError
from engine.spec.load import load_spec

VALID = """\
[experiment]
name = "headline"

[model]
name = "tiny"
architecture = { kind = "llama", hidden_size = 64 }

[tasks.headline]
source = { kind = "jsonl", path = "data/articles.jsonl" }
prompts = ["Write a headline.\\n\\n{{ text }}"]
teacher = { kind = "gold", column = "title" }

[mixture]
tasks = ["headline"]

[training]
method = "lora"
"""


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Write a file into the workspace; gives its path."""

    def write(text: str, name: str = "specs/a.toml") -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(dedent(text), "utf-8")
        return path

    return write


@pytest.fixture
def fails(tmp_path: Path, write: Callable[..., Path]) -> Callable[..., tuple[Problem, ...]]:
    """Load a spec that must fail; gives its problems."""

    def fails(text: str, name: str = "specs/a.toml") -> tuple[Problem, ...]:
        with pytest.raises(UserError) as caught:
            load_spec(write(text, name), tmp_path)
        return caught.value.problems

    return fails


@pytest.fixture(scope="session")
def valid() -> str:
    return VALID
