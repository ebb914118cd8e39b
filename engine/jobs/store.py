"""The store of jobs, patient: what fails for a while is tried again, so that no finished work is lost to it; what is refused is not."""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from engine.core.errors import UserError
from engine.dvc.config import default_remote
from engine.dvc.remote import Remote, Unreadable

T = TypeVar("T")

PATIENCE_SECONDS = 600.0
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 30.0


@dataclass
class Store:
    """DVC's remote, each request repeated for PATIENCE seconds; after that, UserError, and at once where it would fail again."""

    remote: Remote
    say: Callable[[str], None]
    patience: float = PATIENCE_SECONDS

    def _try(self, request: Callable[[], T]) -> T:
        began, pause, told = time.monotonic(), _FIRST_PAUSE, False
        while True:
            try:
                return request()
            except Unreadable as error:
                if error.permanent:
                    hint = "see `dvc remote list` and the credentials of this machine, then start the same command again"
                    url = default_remote(self.remote.root).get("url", "")
                    raise UserError(f"the store {url} refuses a request: {error}", hint=hint) from None
                if time.monotonic() - began > self.patience:
                    hint = "start the same command again when it can: what has reached it stays"
                    raise UserError(f"the store has failed for {self.patience:.0f} s: {error}", hint=hint) from None
                if not told:
                    self.say(f"the store fails: {error}; trying again for {self.patience:.0f} s")
                    told = True
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)
            self.remote.failed = ""

    def pull(self, md5s: Iterable[str]) -> bool:
        """See Remote."""
        wanted = list(md5s)
        return self._try(lambda: self.remote.pull(wanted))

    def pull_runs(self, folder: str) -> bool:
        """See Remote."""
        return self._try(lambda: self.remote.pull_runs(folder))

    def pull_run_records(self, folder: str) -> bool:
        """See Remote."""
        return self._try(lambda: self.remote.pull_run_records(folder))

    def push(self, md5s: Iterable[str]) -> int:
        """See Remote."""
        wanted = list(md5s)
        return self._try(lambda: self.remote.push(wanted))

    def push_runs(self, folder: str) -> None:
        """See Remote."""
        self._try(lambda: self.remote.push_runs(folder))

    def write(self, name: str, text: str) -> None:
        """See Remote."""
        self._try(lambda: self.remote.write(name, text))

    def texts(self, names: Iterable[str]) -> dict[str, str]:
        """See Remote."""
        wanted = list(names)
        return self._try(lambda: self.remote.texts(wanted))

    def get(self, name: str, file: Path) -> bool:
        """See Remote."""
        return self._try(lambda: self.remote.get(name, file))

    def put(self, file: Path, name: str) -> int:
        """See Remote."""
        return self._try(lambda: self.remote.put(file, name))

    def remove(self, names: Iterable[str]) -> None:
        """See Remote."""
        wanted = list(names)
        self._try(lambda: self.remote.remove(wanted))
