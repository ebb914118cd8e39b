"""What a format adds to the meaning of a tokenizer: the chat template, and the token that ends an answer.

Tokenize leaves it beside its tokens, and the training, which knows no format, writes it into the folder of its model or adapter.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, Self

TAUGHT = "format.json"
"""The file of a tokenize step that holds it."""


class Renderer(Protocol):
    """What renders rows in a format."""

    end: str
    """The text of the token behind an answer; empty where the format puts none there."""

    @property
    def served_template(self) -> str | None:
        """The chat template that renders as this does; None where the format is no chat template."""


@dataclass(frozen=True)
class Taught:
    """What a format adds to a tokenizer."""

    end: str | None = None
    """The text of the token that ends an answer; None: the tokenizer's end-of-sequence token does."""
    template: str | None = None
    """The chat template by which conversations were rendered; None: they were not rendered by one."""

    @classmethod
    def by(cls, renderer: Renderer) -> Self:
        """What the format of RENDERER adds."""
        return cls(renderer.end or None, renderer.served_template)

    @classmethod
    def read(cls, path: Path | None) -> Self:
        """What `write` wrote to PATH; nothing is added where there is no file."""
        return cls(**json.loads(path.read_text("utf-8"))) if path else cls()

    def write(self, path: Path) -> None:
        """Write this to PATH, as JSON."""
        path.write_text(json.dumps({"end": self.end, "template": self.template}, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def with_variables(template: str, variables: Mapping[str, str | int | bool]) -> str:
    """TEMPLATE with VARIABLES as its defaults: rendered without them it gives what the training got."""
    if not variables:
        return template
    # JSON writes texts, whole numbers and truth values as Jinja reads them.
    values = {name: json.dumps(value, ensure_ascii=False) for name, value in sorted(variables.items())}
    sets = [f"{{% if {name} is not defined %}}{{% set {name} = {value} %}}{{% endif %}}" for name, value in values.items()]
    # Chat templates are compiled with `trim_blocks`, which takes the line break away: the template still begins a line.
    return "".join(sets) + "\n" + template
