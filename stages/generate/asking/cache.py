"""Answers that were paid for: one SQLite file for all steps of a workspace, addressed by the whole request, written answer by answer."""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from engine.core.errors import UserError
from stages.generate.asking.reply import Reply
from stages.generate.asking.request import Request
from stages.rows.text import is_well_formed

FOLDER = ".adapterbuild"
ELSEWHERE = "ADAPTERBUILD_ANSWERS"
"""Environment variable that names the file, for workspaces that share their answers."""

_FORMAT = 1
_TABLES = """
CREATE TABLE IF NOT EXISTS answers (
  key BLOB PRIMARY KEY, endpoint TEXT NOT NULL, model TEXT NOT NULL, step TEXT NOT NULL,
  text TEXT NOT NULL, refusal TEXT, finish_reason TEXT, prompt_bytes INTEGER NOT NULL,
  prompt_tokens INTEGER NOT NULL, completion_tokens INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS batches (
  name TEXT PRIMARY KEY, endpoint TEXT NOT NULL, model TEXT NOT NULL, id TEXT
) WITHOUT ROWID;
"""
_WAIT = 60.0  # seconds for another step that writes at this moment
_UNTOLD = -1  # in place of a number of tokens that the endpoint does not tell
_COLUMNS = "text, refusal, finish_reason, prompt_tokens, completion_tokens"


@dataclass(frozen=True)
class Averages:
    """What the answers of one model took so far."""

    answers: int
    bytes_per_token: float | None
    completion_tokens: float | None


def answers_path(root: Path | None = None) -> Path:
    """Where the answers of the workspace at ROOT (the current folder) lie; experiments that DVC runs aside share them."""
    if named := os.environ.get(ELSEWHERE):
        return Path(named)
    root = (root or Path()).resolve()
    workspace = next((folder.parent for folder in root.parents if folder.name == ".dvc" and "exps" in root.parts), root)
    return workspace / FOLDER / "answers.sqlite"


class Answers:
    """The file, open; a context manager. Several processes may use it at once."""

    def __init__(self, path: Path, read_only: bool = False) -> None:
        self.path = path
        with self._located():
            self._connection = self._open(read_only)

    def _open(self, read_only: bool) -> sqlite3.Connection:
        if read_only:
            return sqlite3.connect(f"{self.path.resolve().as_uri()}?mode=ro", uri=True, timeout=_WAIT)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self.path.parent.name == FOLDER and not (ignore := self.path.parent / ".gitignore").exists():
            ignore.write_text("*\n", "utf-8")  # beside git whatever the workspace's own .gitignore says
        connection = sqlite3.connect(self.path, timeout=_WAIT, isolation_level=None)
        # A killed process loses nothing that was committed; only a power failure can take the last moments, and never the file.
        connection.executescript("PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;")
        if connection.execute("PRAGMA user_version").fetchone()[0] not in (0, _FORMAT):
            raise UserError(f"{self.path} was written by another version", hint="update adapterbuild, or move the file away to ask anew")
        connection.executescript(f"{_TABLES} PRAGMA user_version = {_FORMAT};")
        return connection

    def find(self, key: bytes) -> Reply | None:
        """The answer that is kept under KEY."""
        with self._located():
            row = self._connection.execute(f"SELECT {_COLUMNS} FROM answers WHERE key = ?", (key,)).fetchone()
        if row is None:
            return None
        text, refusal, finish_reason = map(_loaded, row[:3])
        prompt, completion = (None if count == _UNTOLD else count for count in row[3:])
        return Reply(text or "", refusal, finish_reason, prompt, completion)

    def keep(self, request: Request, reply: Reply, step: str) -> None:
        """Write an answer for good, before anything else is done with it."""
        self.keep_under(request.key, request.endpoint, str(request.body["model"]), step, request.prompt_bytes, reply)

    def keep_under(self, key: bytes, endpoint: str, model: str, step: str, prompt_bytes: int, reply: Reply) -> None:
        """As `keep`, for an answer whose request may be no longer at hand; its size is then 0."""
        counts = (_UNTOLD if count is None else count for count in (reply.prompt_tokens, reply.completion_tokens))
        said = (*map(_stored, (reply.text, reply.refusal, reply.finish_reason)), prompt_bytes, *counts)
        with self._located():
            self._connection.execute(
                "INSERT OR IGNORE INTO answers VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", (key, endpoint, model, step, *said)
            )

    def averages(self, endpoint: str, model: str) -> Averages:
        """What those answers of MODEL took whose tokens the endpoint has told."""
        counted = f"prompt_bytes > 0 AND prompt_tokens > 0 AND completion_tokens <> {_UNTOLD}"
        sums = "count(*), sum(prompt_bytes), sum(prompt_tokens), sum(completion_tokens)"
        with self._located():
            found = self._connection.execute(
                f"SELECT {sums} FROM answers WHERE endpoint = ? AND model = ? AND {counted}", (endpoint, model)
            )
            count, size, prompt, completion = found.fetchone()
        return Averages(count, size / prompt if prompt else None, completion / count if completion else None)

    def open_batches(self, endpoint: str) -> list[tuple[str, str, str | None]]:
        """Name, model and the provider's id (None where it was never told) of every batch that is not collected yet."""
        with self._located():
            return list(self._connection.execute("SELECT name, model, id FROM batches WHERE endpoint = ? ORDER BY name", (endpoint,)))

    def keep_batch(self, name: str, endpoint: str, model: str, identity: str | None) -> None:
        """Write down that a batch will be sent, or under which id it was."""
        with self._located():
            self._connection.execute("INSERT OR REPLACE INTO batches VALUES (?, ?, ?, ?)", (name, endpoint, model, identity))

    def forget_batch(self, name: str) -> None:
        """A batch is collected, or was never made."""
        with self._located():
            self._connection.execute("DELETE FROM batches WHERE name = ?", (name,))

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """One transaction for many answers that arrive together."""
        with self._located():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise
            self._connection.execute("COMMIT")

    @contextmanager
    def _located(self) -> Iterator[None]:
        """SQLite's errors as the user's: a full disk, a damaged file, a folder that cannot be written."""
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            hint = "make room, or mend or move away the file; what it holds was paid for"
            raise UserError(f"the paid answers in {self.path} cannot be used: {error}", hint=hint) from None

    def close(self) -> None:
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, error_type: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def _stored(text: str | None) -> str | bytes | None:
    """TEXT as SQLite takes it: what is no well-formed text (JSON can smuggle in lone surrogates) is kept as bytes."""
    return text if text is None or is_well_formed(text) else text.encode("utf-8", "surrogatepass")


def _loaded(value: str | bytes | None) -> str | None:
    return value.decode("utf-8", "surrogatepass") if isinstance(value, bytes) else value
