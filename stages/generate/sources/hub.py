"""Rows of a data set on the Hugging Face hub, pinned to a commit and streamed."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from engine.core.errors import Location, UserError
from engine.core.part import recipe
from stages.generate.selection import Located, Selection

COMMIT = re.compile("[0-9a-f]{40}")
_SECONDS_BETWEEN_TRIES, _TRIES = 1, 20


class Hub(Selection):
    """A data set on the hub; `limit` bounds the download. Reads `HF_ENDPOINT` and `HF_TOKEN`."""

    kind: Literal["hub"] = "hub"
    environment = ("datasets",)
    id: str = recipe(description="The data set's id, such as `allenai/scitldr`.", pattern=r"^[\w.-]+(/[\w.-]+)?$")
    config: str | None = recipe(None, "Configuration of the data set, if it has several.", min_length=1)
    split: str = recipe("train", "Split of the data set.", min_length=1)
    revision: str = recipe(
        description="Full commit hash of the data set's repository (40 hex digits), since a branch or tag may move.", min_length=1
    )

    def read(self, files: Sequence[Path]) -> Iterator[Located]:
        """Each row with its number; raises UserError if the hub denies access, or has no such data set, configuration or split."""
        from stages.rows.plain_values import plain

        rows = _errors_of_the_hub(self, _stream(self))
        for number, row in enumerate(rows, 1):
            where = Location(f"{self.id}@{self.revision[:12]}, {self.split} row {number}")
            yield where, {name: plain(value, name, where) for name, value in row.items()}


def _stream(source: Hub) -> Iterator[dict[str, Any]]:
    import datasets

    # The library resumes a broken connection, after waiting five seconds each time.
    datasets.config.STREAMING_READ_RETRY_INTERVAL = _SECONDS_BETWEEN_TRIES
    datasets.config.STREAMING_READ_MAX_RETRIES = _TRIES
    yield from datasets.load_dataset(source.id, source.config, split=source.split, revision=source.revision, streaming=True)


def _errors_of_the_hub(source: Hub, rows: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """ROWS, with errors of the library and the hub turned into UserError."""
    from huggingface_hub.utils import httpx

    try:
        yield from rows
    except (OSError, ValueError, httpx.HTTPError) as error:  # these include the library's and the hub's own errors
        raise _said(source, error) from None


def _said(source: Hub, error: Exception) -> UserError:
    """The UserError for ERROR: the library wraps the hub's errors, which differ only in their text."""
    from datasets.exceptions import DatasetNotFoundError

    message = str(error).strip() or type(error).__name__
    if not isinstance(error, DatasetNotFoundError):
        hint = "check config and split" if isinstance(error, ValueError) else "run again if the connection failed"
        return UserError(f"{source.id} could not be read: {message}", hint=hint)
    if "gated" in message:
        return UserError(f"{source.id} is gated", hint="accept its terms on the hub and set HF_TOKEN")
    if "Revision" in message:
        return UserError(f"{source.id} has no revision {source.revision}", hint="give the full commit hash")
    return UserError(f"the hub has no data set {source.id}", hint="check the id; a private one needs HF_TOKEN")
