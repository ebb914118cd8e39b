"""How often code that a model wrote passes the unit tests of its row (Chen et al., 2021, arXiv:2107.03374)."""

import re
from collections.abc import Sequence
from typing import ClassVar, Literal

from engine.core.part import Part, recipe
from stages.evaluate.metrics.statistic import Prediction, Statistic, answer_of, proportion_of, references_of
from stages.evaluate.sandbox import Isolation, Program, Sandbox

_FENCED = re.compile(r"^[ \t]*```[ \t]*(\S*)[^\n]*\n(.*?)(?:^[ \t]*```|\Z)", re.DOTALL | re.MULTILINE)
_PYTHON = {"", "python", "python3", "py"}


class UnitTests(Part):
    """Share of the answers whose Python code passes the tests that the row has as its reference; an answer that hit the length limit fails.

    Of an answer with a fenced block of Python, the first one is the code; else the whole answer is. Tests are Python: statements
    (`assert add(1, 2) == 3`), functions `test_…` and classes of unittest; of several references all have to pass. Code sees Python's
    standard library alone.
    """

    kind: Literal["unit_tests"] = "unit_tests"
    with_prompt: bool = recipe(False, "Whether the code begins with the row's prompt, as where a model completes a function.")
    seconds: int = recipe(5, "Processor time of one answer and its tests, in seconds; code that needs more fails.", gt=0, le=3600)
    memory_mb: int = recipe(1000, "Address space of one answer and its tests, in MB.", ge=100)
    isolation: Isolation = recipe(
        "bubblewrap",
        "`bubblewrap`: without network, other processes and files but Python's own, by the program of this name; `limits`: limits of time "
        "and memory alone, for a container or a machine that is thrown away itself.",
    )
    needs_reference: ClassVar[bool] = True

    def measure(self, predictions: Sequence[Prediction]) -> list[Statistic]:
        """`unit_tests`, 0 to 1. Raises UserError if code cannot be isolated on this machine."""
        programs = [Program(self._code(p), "\n".join(references_of(p))) if p.ended else None for p in predictions]
        distinct = list(dict.fromkeys(program for program in programs if program))
        passed = dict(zip(distinct, Sandbox(self.isolation, self.seconds, self.memory_mb).passes(distinct), strict=True))
        return [proportion_of("unit_tests", [program is not None and passed[program] for program in programs])]

    def _code(self, prediction: Prediction) -> str:
        answer = answer_of(prediction)
        blocks = [text for language, text in _FENCED.findall(answer) if language.lower() in _PYTHON]
        return (prediction.prompt if self.with_prompt else "") + (blocks[0] if blocks else answer)
