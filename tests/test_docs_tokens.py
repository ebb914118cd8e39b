"""What the pages on tokens, mixtures and chat teachers write into a spec is what a spec takes; and all examples compile."""

import re
import textwrap
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import TypeAdapter

from engine.compile.compiler import compile_graph
from engine.core.part import Part, with_tuples
from engine.spec.load import load_specs
from engine.spec.models import Model
from engine.spec.sections import Mixture, Spec, Task, Tokenization, Training

ROOT = Path(__file__).parents[1]
NAMES = ("formats-and-masks", "mix-and-pack", "generate-with-a-chat-api")
PAGES = {name: (ROOT / f"docs/how-to/{name}.md").read_text("utf-8") for name in NAMES}
EXAMPLES = sorted(path for path in (ROOT / "specs/examples").iterdir() if (path / "specs").is_dir())
TEACHER = {"kind": "chat", "model": "m", "json_schema": {"type": "object"}}
NEEDED = {"mixture": {"tasks": ("extract", "headline", "topic")}, "training": {"method": "lora"}, "tokenization": {}, "model": {}}


def blocks() -> Iterator[tuple[str, dict[str, Any]]]:
    """Every block of TOML of the pages, fenced or indented, with the page's name."""
    for name, page in PAGES.items():
        indented = [block for block in re.findall(r"(?:^    .*\n|^\n)+", page, re.MULTILINE) if block.strip().startswith("[")]
        for block in [*re.findall(r"```toml\n(.*?)```", page, re.DOTALL), *map(textwrap.dedent, indented)]:
            yield name, tomllib.loads(block)


@pytest.mark.parametrize(("name", "given"), list(blocks()))
def test_a_spec_takes_it(name: str, given: dict[str, Any]):
    sections = {"mixture": Mixture, "training": Training, "tokenization": Tokenization, "model": Model}
    tasks = given.pop("tasks", {}) | ({"a": {"teacher": given.pop("teacher")}} if "teacher" in given else {})
    for task in tasks.values():
        teacher = task.pop("teacher", {})
        teacher = teacher if teacher.get("kind") == "local" else TEACHER | teacher
        whole = {"source": {"kind": "jsonl", "path": "a"}, "prompts": ["{{ a }}"]} | task | {"teacher": teacher}
        assert Task.model_validate(with_tuples(whole)).teacher
    for section, values in given.items():
        assert TypeAdapter(sections[section]).validate_python(with_tuples(NEEDED[section] | values))


def test_the_pages_have_blocks():
    assert {name for name, _ in blocks()} == set(PAGES)


def kinds(annotation: Any) -> set[str]:
    """The kinds of every family in ANNOTATION."""
    own = {annotation.model_fields["kind"].default} if "kind" in getattr(annotation, "model_fields", {}) else set()
    return own.union(*(kinds(part) for part in get_args(annotation)))


@pytest.mark.parametrize(
    ("page", "part", "field"),
    [
        ("formats-and-masks", Tokenization, "mask"),
        ("formats-and-masks", Tokenization, "format"),
        ("mix-and-pack", Mixture, "sampler"),
        ("mix-and-pack", Training, "batching"),
    ],
)
def test_every_member_is_on_its_page(page: str, part: type[Part], field: str):
    members = kinds(part.model_fields[field].annotation)
    assert members and not [kind for kind in members if f'"{kind}"' not in PAGES[page]]


def test_every_policy_is_on_the_page():
    policies = get_args(Tokenization.model_fields["over_length"].annotation)
    assert not [policy for policy in policies if f'`"{policy}"`' not in PAGES["formats-and-masks"]]


def specs(example: Path) -> tuple[Spec, ...]:
    return load_specs(sorted((example / "specs").glob("*.toml")), example)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_an_example_compiles_and_its_page_names_what_is_there(example: Path):
    assert len(compile_graph(specs(example))) > 5
    named = re.findall(r"(?:specs|templates|prompts)/[\w./-]+\w", (example / "README.md").read_text("utf-8"))
    assert not [name for name in named if not (example / name).exists() and not (ROOT / name).exists()]


def test_the_examples_show_every_mask_every_format_and_every_sampler():
    shown = [spec.experiment for example in EXAMPLES for spec in specs(example)]
    assert {one.tokenization.mask.kind for one in shown} == kinds(Tokenization.model_fields["mask"].annotation)
    assert {one.tokenization.format.kind for one in shown} == kinds(Tokenization.model_fields["format"].annotation)
    assert {one.mixture.sampler.kind for one in shown if one.mixture} == kinds(Mixture.model_fields["sampler"].annotation)
    assert {"packed", "padded", "padding_free"} <= {one.training.batching.kind for one in shown if one.training}
