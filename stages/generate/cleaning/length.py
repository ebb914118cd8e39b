"""Leaves out texts that are too short or too long."""

from typing import Literal, Self

from pydantic import model_validator
from pydantic_core import PydanticCustomError

from engine.core.part import recipe
from stages.generate.cleaning.rule import Check, FilesOf, Rule
from stages.rows.segmentation import count_words


class Length(Rule):
    """Bounds on a text's length, in characters or in words (separated by spaces; single characters in scripts without spaces)."""

    kind: Literal["length"] = "length"
    environment = ("regex",)
    min_characters: int | None = recipe(None, "Shorter texts are left out.", gt=0)
    max_characters: int | None = recipe(None, "Longer texts are left out.", gt=0)
    min_words: int | None = recipe(None, "Texts with fewer words are left out.", gt=0)
    max_words: int | None = recipe(None, "Texts with more words are left out.", gt=0)

    @model_validator(mode="after")
    def _some_bound(self) -> Self:
        if not any((self.min_characters, self.max_characters, self.min_words, self.max_words)):
            raise PydanticCustomError("no_bound", "give at least one bound: min_characters, max_characters, min_words or max_words", {})
        return self

    def check(self, files: FilesOf) -> Check:
        """A stateless check."""

        def reason(text: str) -> str | None:
            for unit, size, least, most in (
                ("characters", len(text), self.min_characters, self.max_characters),
                ("words", count_words(text), self.min_words, self.max_words),
            ):
                if least is not None and size < least:
                    return f"fewer than {least} {unit}"
                if most is not None and size > most:
                    return f"more than {most} {unit}"
            return None

        return reason
