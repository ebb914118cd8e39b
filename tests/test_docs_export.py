"""What docs/how-to/export.md writes is what [export] takes, refuses and measures."""

import re
import tomllib
from pathlib import Path
from typing import get_args

from engine.core.part import with_tuples
from engine.spec.sections import Export
from stages.export.comparing import RULES
from stages.export.formats.base import LIMITS
from stages.export.formats.gguf import Gguf
from stages.export.formats.merged import Merged

PAGE = (Path(__file__).parents[1] / "docs/how-to/export.md").read_text("utf-8")


def table(head: str) -> list[list[str]]:
    """The cells of the page's table that begins with HEAD."""
    lines = PAGE[PAGE.index(head) :].splitlines()
    body = lines[2 : next((number for number, line in enumerate(lines) if not line.startswith("|")), None)]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in body]


def test_the_section_is_one():
    (block,) = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    found = Export.model_validate(with_tuples(tomllib.loads(block)["export"]))
    assert [one.label for one in found.formats] == ["merged-bfloat16", "gguf-q8_0", "gguf-lora", "vllm"]


def test_every_type_of_weights_is_named():
    for annotation in (Merged.model_fields["dtype"].annotation, Gguf.model_fields["type"].annotation):
        assert all(f"`{kind}`" in PAGE for kind in get_args(annotation))


def test_every_rule_is_named_in_its_order():
    named = [name for name, _ in table("| rule |")]
    modules = [rule.__module__.rpartition(".")[2].replace("_", " ") for rule in RULES]
    assert named == modules


def test_the_limits_are_those_of_the_code():
    rows = {row[0].strip("`"): (float(row[1]), float(row[3])) for row in table("| precision |")}
    assert rows == {name: (limits.divergence, limits.equal_answers) for name, limits in LIMITS.items()}
