"""What the rules of cleaning have in common: which text they look at, and what they may remember between rows."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from engine.core.part import Part, recipe


@dataclass(frozen=True, slots=True)
class Texts:
    """A row as the rules see it; of a conversation, the prompt is all before its last answer."""

    prompt: str
    completion: str

    def of(self, which: str) -> str:
        """The text that a rule looks at."""
        match which:
            case "prompt":
                return self.prompt
            case "completion":
                return self.completion
        return f"{self.prompt}\n{self.completion}"


Check = Callable[[str], str | None]
"""Asked with one text after another: why the row is left out, or None; it may remember what it was asked before."""

FilesOf = Callable[[str], tuple[Path, ...]]
"""The files of a part of the rule, by the part's field."""


class Rule(Part):
    """One rule of cleaning; a rule about the prompt is asked before any teacher is."""

    of: Literal["prompt", "completion", "row"] = recipe("row", "Which text is looked at: the prompt, the completion, or both as one.")

    def check(self, files: FilesOf) -> Check:
        """A fresh check, which has seen no row yet."""
        raise NotImplementedError
