"""Leaves out texts in the wrong script: a cheap substitute for language identification."""

import unicodedata
from collections import Counter
from functools import cache
from typing import Literal

from engine.core.part import recipe
from stages.generate.cleaning.rule import Check, FilesOf, Rule

ScriptName = Literal[
    "latin", "greek", "cyrillic", "hebrew", "arabic", "devanagari", "bengali", "tamil", "thai", "hangul", "han", "hiragana", "katakana"
]


class Script(Rule):
    """Allowed scripts; languages of one script, such as English and German, are not distinguished."""

    kind: Literal["script"] = "script"
    scripts: tuple[ScriptName, ...] = recipe(description="Allowed scripts.", min_length=1)
    min_share: float = recipe(0.9, "Minimum share of letters in these scripts; a text without letters stays.", gt=0, le=1)

    def check(self, files: FilesOf) -> Check:
        """A stateless check."""

        def reason(text: str) -> str | None:
            counts = Counter(_script(character) for character in text if character.isalpha())
            allowed = sum(counts[name] for name in self.scripts)
            if counts and allowed / counts.total() < self.min_share:
                return f"not in {' or '.join(self.scripts)} script"
            return None

        return reason


@cache
def _script(letter: str) -> str:
    """The script of a letter: the first word of its Unicode name (`GREEK SMALL LETTER ALPHA`, `CJK UNIFIED IDEOGRAPH-4E2D`)."""
    first = unicodedata.name(letter, "unknown").split(" ", 1)[0].lower().removesuffix("-width")
    if first in ("full", "fullwidth"):
        return "latin"
    return "han" if first == "cjk" else first
