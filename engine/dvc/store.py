"""What a plan reads of a workspace; `engine.dvc.disk` reads it from the disk, tests from a dictionary."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from engine.core.graph import Step
from engine.dvc.dvcfile import Entry, Record

if TYPE_CHECKING:
    from engine.dvc.run_records import RunRecord  # only whoever reads it needs to know it


class Store(Protocol):
    """The content of the workspace, the recorded runs, and the caches."""

    def entry(self, path: str) -> Entry | None:
        """The content of a path in the workspace; None if it does not exist."""

    def record(self, step: str) -> Record | None:
        """The last recorded run of a step in `dvc.lock`."""

    def runs(self, key: str) -> Iterable[Record | None]:
        """All runs in the run cache for a key, newest first; None for an unreadable entry."""

    def runs_with(self, path: str, md5: str) -> bool:
        """Whether the run cache has any run that read this content at this path."""

    @property
    def offered(self) -> Mapping[str, str]:
        """Artifacts, by md5, that DVC's remote was found to have, each with what is known of the run that made it."""

    def holds(self, entry: Entry) -> bool:
        """Whether the cache has this content, for a folder including all its files."""

    def holds_intact(self, entry: Entry) -> bool:
        """As `holds`, and none of it is damaged."""

    def obtainable(self, entry: Entry) -> bool:
        """As `holds_intact`, but DVC's remote counts too if it is a folder."""

    def obtain(self, md5: str) -> bytes | None:
        """As `read`, but also from DVC's remote if it is a folder."""

    def tree(self, md5: str) -> Mapping[str, str] | None:
        """The listing of a folder (path inside it to md5); None if it is not available."""

    def read(self, md5: str) -> bytes | None:
        """The content of a file in the cache; None if it is missing."""

    def metrics(self, path: str) -> Mapping[str, Any]:
        """The content of a metrics file in the workspace; empty if it is missing."""

    def ran(self, step: Step) -> "RunRecord | None":
        """The record of the run that produced the step's outputs in the workspace."""

    def run_record(self, step: str, statement: str) -> "RunRecord | None":
        """The record of the run that produced a statement (given by md5), from the cache."""
