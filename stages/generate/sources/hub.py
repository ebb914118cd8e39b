"""Rows of a data set of the Hugging Face hub, pinned to a commit and read as a stream."""

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
    """A data set of the hub; `limit` bounds what is downloaded. `HF_ENDPOINT` and `HF_TOKEN` are honoured."""

    kind: Literal["hub"] = "hub"
    environment = ("datasets",)
    id: str = recipe(description="The data set's id, such as `allenai/scitldr`.", pattern=r"^[\w.-]+(/[\w.-]+)?$")
    config: str | None = recipe(None, "One of the data set's configurations, where it has several.", min_length=1)
    split: str = recipe("train", "One of the data set's splits.", min_length=1)
    revision: str = recipe(description="Commit of the data set's repository: 40 hex digits; a branch or tag may move.", min_length=1)

    def read(self, files: Sequence[Path]) -> Iterator[Located]:
        """Each row with its number; raises UserError where the hub refuses, or has no such data set, configuration or split."""
        from stages.rows.plain_values import plain

        rows = _errors_of_the_hub(self, _stream(self))
        for number, row in enumerate(rows, 1):
            where = Location(f"{self.id}@{self.revision[:12]}, {self.split} row {number}")
            yield where, {name: plain(value, name, where) for name, value in row.items()}


def _stream(source: Hub) -> Iterator[dict[str, Any]]:
    import datasets

    # A cut connection is taken up where it broke; the library waits five seconds each time.
    datasets.config.STREAMING_READ_RETRY_INTERVAL = _SECONDS_BETWEEN_TRIES
    datasets.config.STREAMING_READ_MAX_RETRIES = _TRIES
    yield from datasets.load_dataset(source.id, source.config, split=source.split, revision=source.revision, streaming=True)


def _errors_of_the_hub(source: Hub, rows: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """ROWS, with what can go wrong on the way said in a user's words."""
    from huggingface_hub.utils import httpx

    try:
        yield from rows
    except (OSError, ValueError, httpx.HTTPError) as error:  # the library's and the hub's own errors are some of these
        raise _said(source, error) from None


def _said(source: Hub, error: Exception) -> UserError:
    """The library hides the hub's own errors behind one of its own, whose text alone tells them apart."""
    from datasets.exceptions import DatasetNotFoundError

    message = str(error).strip() or type(error).__name__
    if not isinstance(error, DatasetNotFoundError):
        hint = "are config and split right?" if isinstance(error, ValueError) else "run it again where the connection failed"
        return UserError(f"{source.id} could not be read: {message}", hint=hint)
    if "gated" in message:
        return UserError(f"{source.id} is gated", hint="accept its terms on the hub and set HF_TOKEN")
    if "Revision" in message:
        return UserError(f"{source.id} has no revision {source.revision}", hint="give the full commit id")
    return UserError(f"the hub has no data set {source.id}", hint="check the id; a private one needs HF_TOKEN")
