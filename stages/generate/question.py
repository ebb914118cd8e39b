"""Questions to and answers of a teacher, and its counts."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from engine.core.errors import Location
from stages.process.job import Metrics

Row = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Question:
    """One row as a question to a teacher."""

    system: str
    """The system prompt; empty if the task has none."""
    prompt: str
    row: Row
    """The source's row, for teachers that read its columns."""
    where: Location
    """The row's location, for error messages."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A teacher's answer to one question; with a reason, the row is left out and counted under it."""

    text: str
    left_out: str | None = None
    references: tuple[str, ...] = ()
    """All correct answers if there are several; `text` is the first."""


@dataclass
class Tally:
    """Counts of a teacher."""

    counted: Metrics = field(default_factory=dict)
    """Deterministic counts, written to the metrics under `teacher`."""
    expected: int | None = None
    """Rows of the source before any filter, if they were counted, for the teacher's estimate of the time left."""
    measured: Metrics = field(default_factory=dict)
    """Counts that differ between runs, such as paid requests, written to the provenance."""
