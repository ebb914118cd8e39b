"""What a format adds to a tokenizer: the chat template, and the token that ends an answer.

Tokenize saves it with its tokens; train, which does not depend on the format, writes it into the folder of its model or adapter.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, Self

TAUGHT = "format.json"
"""The file of a tokenize step that holds it."""


class Renderer(Protocol):
    """A renderer of rows, as far as this module uses it."""

    end: str
    """Text of the token after an answer; empty if the format adds none."""

    @property
    def served_template(self) -> str | None:
        """The chat template that renders as this does; None if the format is not a chat template."""


@dataclass(frozen=True)
class Taught:
    """What a format adds to a tokenizer."""

    end: str | None = None
    """Text of the token that ends an answer; None: the tokenizer's end-of-sequence token."""
    template: str | None = None
    """The chat template that rendered the conversations; None if none did."""

    @classmethod
    def by(cls, renderer: Renderer) -> Self:
        """What the format of RENDERER adds."""
        return cls(renderer.end or None, renderer.served_template)

    @classmethod
    def read(cls, path: Path | None) -> Self:
        """Read what `write` wrote to PATH; empty if there is no file."""
        return cls(**json.loads(path.read_text("utf-8"))) if path else cls()

    def write(self, path: Path) -> None:
        """Write this to PATH, as JSON."""
        path.write_text(json.dumps({"end": self.end, "template": self.template}, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def with_variables(template: str, variables: Mapping[str, str | int | bool]) -> str:
    """TEMPLATE with VARIABLES as defaults: rendered without them it produces the training's text."""
    if not variables:
        return template
    # Strings, integers and booleans have the same syntax in JSON and Jinja.
    values = {name: json.dumps(value, ensure_ascii=False) for name, value in sorted(variables.items())}
    sets = [f"{{% if {name} is not defined %}}{{% set {name} = {value} %}}{{% endif %}}" for name, value in values.items()]
    # Chat templates are compiled with `trim_blocks`, which removes the line break, so the template still starts at a line.
    return "".join(sets) + "\n" + template
