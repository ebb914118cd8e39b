"""What a teacher is asked and what it answers; what a teacher wants to have counted."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from engine.core.errors import Location
from stages.process.job import Metrics

Row = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Question:
    """One row as a teacher is asked about it."""

    system: str
    """The system prompt, empty where the task has none."""
    prompt: str
    row: Row
    """The source's row, for teachers that read its columns."""
    where: Location
    """Where the row stands, for errors about it."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a teacher says to one question; with a reason, the row is left out and counted under it."""

    text: str
    left_out: str | None = None
    references: tuple[str, ...] = ()
    """All answers that are right, `text` the first of them, where there are several."""


@dataclass
class Tally:
    """What a teacher counts while it answers."""

    counted: Metrics = field(default_factory=dict)
    """Numbers that are the same each time the step runs: they stand in the metrics under `teacher`."""
    expected: int | None = None
    """Rows of the source, before any filter, where somebody counted them: what a teacher says about the time that is left."""
    measured: Metrics = field(default_factory=dict)
    """Numbers that differ from run to run, such as requests that were paid for now: they go into the provenance."""
