"""The interface of cleaning rules: which text they check, and their state between rows."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from engine.core.part import Part, recipe


@dataclass(frozen=True, slots=True)
class Texts:
    """The texts of a row; of a conversation, the prompt is everything before its last answer."""

    prompt: str
    completion: str

    def of(self, which: str) -> str:
        """The text that a rule checks: `prompt`, `completion` or `row`."""
        match which:
            case "prompt":
                return self.prompt
            case "completion":
                return self.completion
        return f"{self.prompt}\n{self.completion}"


Check = Callable[[str], str | None]
"""Called with the text of each row: returns why the row is left out, or None; may keep state between calls."""

FilesOf = Callable[[str], tuple[Path, ...]]
"""The files of a part of the rule, by the part's field."""


class Rule(Part):
    """A cleaning rule; rules about the prompt apply before the teacher answers."""

    compares_rows: ClassVar[bool] = False
    """Whether the rule compares a row with others."""
    of: Literal["prompt", "completion", "row"] = recipe("row", "The text to check: the prompt, the completion, or both together.")

    def check(self, files: FilesOf) -> Check:
        """A new check without state."""
        raise NotImplementedError
