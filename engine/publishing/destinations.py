"""Where results are published: a folder, or a repository of the Hugging Face hub; files that are not ours stay as they are."""

import hashlib
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from engine.core.errors import UserError

SUMS = "SHA256SUMS"

Change = Literal["add", "replace", "keep"]


class Destination(Protocol):
    """A place with files."""

    @property
    def name(self) -> str:
        """How the user names it."""

    def same(self, path: str, file: Path) -> bool | None:
        """Whether the file at PATH there has the content of FILE; None if there is none."""

    def sums(self) -> str:
        """The content of SHA256SUMS there; empty if there is none."""

    def write(self, files: Mapping[str, Path], message: str) -> str | None:
        """Write FILES, and nothing else; the revision that has them, if there are revisions."""


def parse_sums(text: str) -> dict[str, str]:
    """The sha256 of each file in the text of a SHA256SUMS; lines of other forms are left out."""
    lines = (line.split("  ", 1) for line in text.splitlines())
    return {parts[1]: parts[0] for parts in lines if len(parts) == 2 and len(parts[0]) == 64}


def sha256(file: Path) -> str:
    """The sha256 of FILE, in hexadecimal digits."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


@dataclass(frozen=True)
class Folder:
    """A folder of this machine."""

    path: Path

    @property
    def name(self) -> str:
        """The folder, as the user wrote it."""
        return str(self.path)

    def same(self, path: str, file: Path) -> bool | None:
        """See Destination; links are compared by where they lead."""
        there = self.path / path
        if not os.path.lexists(there):
            return None
        if file.is_symlink() or there.is_symlink():
            return file.is_symlink() and there.is_symlink() and file.readlink() == there.readlink()
        return there.is_file() and sha256(there) == sha256(file)

    def sums(self) -> str:
        """See Destination."""
        there = self.path / SUMS
        return there.read_text("utf-8", "replace") if there.is_file() else ""

    def write(self, files: Mapping[str, Path], message: str) -> str | None:
        """See Destination; each file is written aside and renamed."""
        if self.path.exists() and not self.path.is_dir():
            raise UserError(f"--to must be a folder or USER/NAME, and {self.path} is a file")
        for name, file in files.items():
            there = self.path / name
            there.parent.mkdir(parents=True, exist_ok=True)
            aside = there.with_name(f".{there.name}.tmp")
            aside.unlink(missing_ok=True)
            shutil.copy(file, aside, follow_symlinks=False)
            aside.replace(there)
        return None


@dataclass
class Hub:
    """A repository of models on the hub, reached through huggingface_hub with the user's own token."""

    id: str
    is_private: bool
    """Whether it is made private, if it does not exist."""
    head: str | None = field(init=False, default=None)
    """The commit that it has now; None if it does not exist."""
    _there: dict[str, Any] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        from huggingface_hub import HfApi
        from huggingface_hub.errors import RepositoryNotFoundError

        with _told(self.id):
            try:
                self.head = HfApi().model_info(self.id).sha
                tree = HfApi().list_repo_tree(self.id, recursive=True, revision=self.head)
                self._there = {item.path: item for item in tree if hasattr(item, "blob_id")}
            except RepositoryNotFoundError:
                pass

    @property
    def name(self) -> str:
        """Its id."""
        return self.id

    def same(self, path: str, file: Path) -> bool | None:
        """See Destination: by the sha256 of a large file, and git's digest of any other."""
        if (there := self._there.get(path)) is None:
            return None
        if there.lfs:
            return bool(there.lfs.sha256 == sha256(file))
        data = file.read_bytes()
        return bool(there.blob_id == hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest())

    def sums(self) -> str:
        """See Destination."""
        from tempfile import TemporaryDirectory

        from huggingface_hub import hf_hub_download

        if SUMS not in self._there:
            return ""
        with _told(self.id), TemporaryDirectory() as folder:
            return Path(hf_hub_download(self.id, SUMS, revision=self.head, local_dir=folder)).read_text("utf-8", "replace")

    def write(self, files: Mapping[str, Path], message: str) -> str | None:
        """See Destination: one commit, on the one that was read, in a repository that is made if it does not exist."""
        from huggingface_hub import CommitOperationAdd, HfApi

        with _told(self.id):
            if self.head is None:
                HfApi().create_repo(self.id, private=self.is_private)
                if self.is_private and not HfApi().model_info(self.id).private:
                    raise UserError(f"the hub made {self.id} public although it was to be private; nothing was published")
            operations = [CommitOperationAdd(name, file) for name, file in files.items()]
            made = HfApi().create_commit(self.id, operations, commit_message=message, parent_commit=self.head)
        return str(made.oid)


def licence_of(kind: str, repository: str, revision: str | None) -> str | None:
    """The licence in the card of a hub REPOSITORY of KIND (`model`, `dataset`); None if it states none, or the hub does not answer."""
    from huggingface_hub import HfApi

    try:
        found = HfApi().repo_info(repository, revision=revision, repo_type=kind, timeout=5)
    except Exception:
        return None
    stated = (getattr(found, "card_data", None) or {}).get("license")
    return ", ".join(stated) if isinstance(stated, list) else stated


@contextmanager
def _told(repository: str) -> Iterator[None]:
    """Errors of the hub and of the way to it as UserErrors."""
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalTokenNotFoundError, OfflineModeIsEnabled
    from huggingface_hub.utils import httpx

    hint = "HF_TOKEN, or `hf auth login`, gives a token with write access"
    try:
        yield
    except HFValidationError as error:
        raise UserError(f"'{repository}' is no repository of the hub: {error}", hint="write it as USER/NAME") from None
    except LocalTokenNotFoundError:
        raise UserError("the hub needs a token", hint=hint) from None
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else 0
        said = (error.server_message or str(error)).strip().splitlines()
        what = f"the hub refuses {repository} (status {status}): {said[0] if said else ''}"
        conflict = "somebody has changed it meanwhile: run the same command again"
        raise UserError(what, hint=hint if status in (401, 403) else conflict if status in (409, 412) else None) from None
    except (OfflineModeIsEnabled, httpx.HTTPError, OSError) as error:
        raise UserError(f"the hub cannot be reached: {str(error).splitlines()[0] if str(error) else type(error).__name__}") from None
