"""Of rows with the same text only the first stays."""

import hashlib
import re
from typing import ClassVar, Literal

from engine.core.part import recipe
from stages.generate.cleaning.rule import Check, FilesOf, Rule

_NOT_WORDS = re.compile(r"[\W_]+")


class Duplicates(Rule):
    """Of rows with the same text only the first stays."""

    kind: Literal["duplicates"] = "duplicates"
    compares_rows: ClassVar[bool] = True
    ignore_case_and_punctuation: bool = recipe(False, "Whether texts that differ only in case and punctuation are duplicates.")

    def check(self, files: FilesOf) -> Check:
        """A check that stores 64 bits of each text's hash."""
        seen: set[bytes] = set()

        def reason(text: str) -> str | None:
            text = _NOT_WORDS.sub(" ", text).strip().casefold() if self.ignore_case_and_punctuation else text
            key = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:8]
            if key in seen:
                return "duplicate"
            seen.add(key)
            return None

        return reason
