"""Leaves out texts with forbidden characters, or with too few letters."""

from typing import Literal, Self

from pydantic import model_validator
from pydantic_core import PydanticCustomError

from engine.core.part import recipe
from stages.generate.cleaning.rule import Check, FilesOf, Rule
from stages.rows.text import shorten


class Characters(Rule):
    """Forbidden characters, and a minimum share of letters."""

    kind: Literal["characters"] = "characters"
    forbidden: str = recipe(
        "", 'Texts with any of these characters are left out, such as `"\\uFFFD"`, the replacement character of decoding errors.'
    )
    min_letters: float | None = recipe(None, "Minimum share of letters among the characters other than white space.", gt=0, le=1)

    @model_validator(mode="after")
    def _some_rule(self) -> Self:
        if not self.forbidden and self.min_letters is None:
            raise PydanticCustomError("no_rule", "give forbidden or min_letters", {})
        return self

    def check(self, files: FilesOf) -> Check:
        """A stateless check."""
        forbidden = frozenset(self.forbidden)

        def reason(text: str) -> str | None:
            if found := sorted(forbidden.intersection(text)):
                return f"character {shorten(found[0])}"
            if self.min_letters is not None:
                visible = [character for character in text if not character.isspace()]
                if not visible or sum(map(str.isalpha, visible)) / len(visible) < self.min_letters:
                    return f"fewer than {self.min_letters:g} letters"
            return None

        return reason
