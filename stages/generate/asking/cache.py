"""Cache of paid answers: one SQLite file for all steps of a workspace, keyed by the whole request, written answer by answer."""

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
"""Environment variable with the file's path, for workspaces that share answers."""

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
_WAIT = 60.0  # seconds to wait for another step's write lock
_UNTOLD = -1  # token count that the endpoint does not report
_COLUMNS = "text, refusal, finish_reason, prompt_tokens, completion_tokens"


@dataclass(frozen=True)
class Averages:
    """Token averages of one model's answers so far."""

    answers: int
    bytes_per_token: float | None
    completion_tokens: float | None


def answers_path(root: Path | None = None) -> Path:
    """Path of the cache of the workspace at ROOT (default: the current folder); DVC's temporary experiment workspaces share it."""
    if named := os.environ.get(ELSEWHERE):
        return Path(named)
    root = (root or Path()).resolve()
    workspace = next((folder.parent for folder in root.parents if folder.name == ".dvc" and "exps" in root.parts), root)
    return workspace / FOLDER / "answers.sqlite"


class Answers:
    """The open cache, a context manager; several processes may use it concurrently."""

    def __init__(self, path: Path, read_only: bool = False) -> None:
        self.path = path
        with self._located():
            self._connection = self._open(read_only)

    def _open(self, read_only: bool) -> sqlite3.Connection:
        if read_only:
            return sqlite3.connect(f"{self.path.resolve().as_uri()}?mode=ro", uri=True, timeout=_WAIT)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self.path.parent.name == FOLDER and not (ignore := self.path.parent / ".gitignore").exists():
            ignore.write_text("*\n", "utf-8")  # untracked whatever the workspace's .gitignore says
        connection = sqlite3.connect(self.path, timeout=_WAIT, isolation_level=None)
        # A killed process loses no committed answer; a power failure may lose the last ones but does not corrupt the file.
        connection.executescript("PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;")
        if connection.execute("PRAGMA user_version").fetchone()[0] not in (0, _FORMAT):
            raise UserError(
                f"{self.path} was written by another version",
                hint="update adapterbuild, or move the file away to request all answers again",
            )
        connection.executescript(f"{_TABLES} PRAGMA user_version = {_FORMAT};")
        return connection

    def find(self, key: bytes) -> Reply | None:
        """The answer stored under KEY; None if there is none."""
        with self._located():
            row = self._connection.execute(f"SELECT {_COLUMNS} FROM answers WHERE key = ?", (key,)).fetchone()
        if row is None:
            return None
        text, refusal, finish_reason = map(_loaded, row[:3])
        prompt, completion = (None if count == _UNTOLD else count for count in row[3:])
        return Reply(text or "", refusal, finish_reason, prompt, completion)

    def keep(self, request: Request, reply: Reply, step: str) -> None:
        """Store an answer durably, before it is used."""
        self.keep_under(request.key, request.endpoint, str(request.body["model"]), step, request.prompt_bytes, reply)

    def keep_under(self, key: bytes, endpoint: str, model: str, step: str, prompt_bytes: int, reply: Reply) -> None:
        """Like `keep`, for an answer whose request may no longer be available; PROMPT_BYTES is then 0."""
        counts = (_UNTOLD if count is None else count for count in (reply.prompt_tokens, reply.completion_tokens))
        said = (*map(_stored, (reply.text, reply.refusal, reply.finish_reason)), prompt_bytes, *counts)
        with self._located():
            self._connection.execute(
                "INSERT OR IGNORE INTO answers VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", (key, endpoint, model, step, *said)
            )

    def averages(self, endpoint: str, model: str) -> Averages:
        """Averages over the answers of MODEL whose token counts the endpoint reported."""
        counted = f"prompt_bytes > 0 AND prompt_tokens > 0 AND completion_tokens <> {_UNTOLD}"
        sums = "count(*), sum(prompt_bytes), sum(prompt_tokens), sum(completion_tokens)"
        with self._located():
            found = self._connection.execute(
                f"SELECT {sums} FROM answers WHERE endpoint = ? AND model = ? AND {counted}", (endpoint, model)
            )
            count, size, prompt, completion = found.fetchone()
        return Averages(count, size / prompt if prompt else None, completion / count if completion else None)

    def open_batches(self, endpoint: str) -> list[tuple[str, str, str | None]]:
        """Name, model and the provider's id (None if it was never received) of every batch that is not collected yet."""
        with self._located():
            return list(self._connection.execute("SELECT name, model, id FROM batches WHERE endpoint = ? ORDER BY name", (endpoint,)))

    def keep_batch(self, name: str, endpoint: str, model: str, identity: str | None) -> None:
        """Record a batch before it is sent, and its IDENTITY afterwards."""
        with self._located():
            self._connection.execute("INSERT OR REPLACE INTO batches VALUES (?, ?, ?, ?)", (name, endpoint, model, identity))

    def forget_batch(self, name: str) -> None:
        """Remove the record of a batch that was collected, or never created."""
        with self._located():
            self._connection.execute("DELETE FROM batches WHERE name = ?", (name,))

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """A transaction for many answers that arrive together."""
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
        """Turn SQLite errors into UserError: a full disk, a damaged file, a read-only folder."""
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            hint = "free disk space, or repair or move the file; do not delete it: its answers were paid for"
            raise UserError(f"cannot use the paid answers in {self.path}: {error}", hint=hint) from None

    def close(self) -> None:
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, error_type: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def _stored(text: str | None) -> str | bytes | None:
    """TEXT for SQLite: text with lone surrogates, which JSON escapes can produce, is stored as bytes."""
    return text if text is None or is_well_formed(text) else text.encode("utf-8", "surrogatepass")


def _loaded(value: str | bytes | None) -> str | None:
    return value.decode("utf-8", "surrogatepass") if isinstance(value, bytes) else value
