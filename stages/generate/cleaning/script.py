"""Texts that are written in the wrong script: the cheap half of telling languages apart."""

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
    """In which scripts a text may be written; languages of one script, such as English and German, are not told apart."""

    kind: Literal["script"] = "script"
    scripts: tuple[ScriptName, ...] = recipe(description="The scripts that may be used.", min_length=1)
    min_share: float = recipe(0.9, "Least share of letters in these scripts; a text without letters stays.", gt=0, le=1)

    def check(self, files: FilesOf) -> Check:
        """Remembers nothing."""

        def reason(text: str) -> str | None:
            counts = Counter(_script(character) for character in text if character.isalpha())
            allowed = sum(counts[name] for name in self.scripts)
            if counts and allowed / counts.total() < self.min_share:
                return f"not in {' or '.join(self.scripts)} script"
            return None

        return reason


@cache
def _script(letter: str) -> str:
    """The script of a letter: Unicode's names begin with it (`GREEK SMALL LETTER ALPHA`, `CJK UNIFIED IDEOGRAPH-4E2D`)."""
    first = unicodedata.name(letter, "unknown").split(" ", 1)[0].lower().removesuffix("-width")
    if first in ("full", "fullwidth"):
        return "latin"
    return "han" if first == "cjk" else first
