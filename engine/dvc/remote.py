"""DVC's default remote: copies objects and entries of the run cache between it and the cache of the workspace, and small texts.

A subprocess (this module) talks to the remote: DVC and its file systems take a second to import, and a hanging request can be abandoned.
Requests and answers are JSON values, one per line; during a transfer the process sends signs of progress.
"""

import contextlib
import errno
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Self

from engine.core.errors import UserError
from engine.dvc import dvcfile
from engine.dvc.config import cache_settings
from engine.dvc.sharing import sharing
from engine.dvc.signatures import RUN, Untrusted, principal
from engine.dvc.writing import aside, copy, file_md5, make_folder
from stages.process.parent import PARENT, die_with_parent, named
from stages.process.starting import ours

PATIENCE = "ADAPTERBUILD_REMOTE_TIMEOUT"
"""The environment variable for the timeout of the remote in seconds."""

_SECONDS = 30.0
_BETWEEN_SIGNS = 1.0
_LONGEST_SIGNATURE = 20_000
_AT_ONCE = 16
"""Requests that are answered at once: most of their time is that of the network, or of `ssh-keygen`."""


def patience() -> float:
    """The timeout of the remote in seconds; raises UserError if the variable is not a number above zero."""
    given = os.environ.get(PATIENCE, "")
    try:
        found = float(given) if given else _SECONDS
    except ValueError:
        found = 0.0
    if not 0 < found < float("inf"):
        raise UserError(
            f"{PATIENCE} must be a number of seconds above zero, got '{given}'", hint=f"unset it: {_SECONDS:.0f} is the default"
        )
    return found


_REFUSALS = (
    "AuthError",
    "ConfigError",
    "RemoteMissingDepsError",
    "NoCredentialsError",
    "PartialCredentialsError",
    "HostKeyNotVerifiable",
    "PermissionDenied",
)
"""Errors of DVC, botocore and asyncssh, by class, that come again however often a request is repeated."""


class Unreadable(Exception):
    """The remote cannot be read; the text says why."""

    def __init__(self, why: str, permanent: bool = False) -> None:
        super().__init__(why)
        self.permanent = permanent
        """Whether the same request fails until somebody changes something: credentials, rights, the name of the bucket."""


@dataclass
class Remote:
    """The default remote of the workspace ROOT, until a request fails; a context manager, which ends the subprocess."""

    root: Path
    failed: str = ""
    """Why the remote cannot be read; empty as long as it can."""
    refused: list[str] = field(default_factory=list)
    """Why runs in the remote were not taken, until whoever asked for them has told it."""
    lacking: str = ""
    """Which object the last `pull` or `has` has missed, such as `files/md5/12/34… is damaged`; empty if none."""
    _permanent: bool = False
    """Whether it failed for good."""
    _ahead: dict[str, Any] = field(default_factory=dict)
    """Answers to requests that are still to be made, by the text of the request."""
    _process: "subprocess.Popen[bytes] | None" = None
    _unread: bytes = b""

    def pull(self, md5s: Iterable[str]) -> bool:
        """Copy objects that the cache lacks, folders with all their files; returns whether the cache then has all of them.

        Raises Unreadable if there is no remote, or if it fails or does not answer in time.
        """
        return self._complete("objects", md5s)

    def has(self, md5s: Iterable[str]) -> bool:
        """Whether the remote or the cache has these objects, folders with all their files; copies only listings. Raises Unreadable."""
        return self._complete("has", md5s)

    def _complete(self, request: str, md5s: Iterable[str]) -> bool:
        wanted = list(md5s)
        self.lacking = str(self._ask({request: wanted}) or "") if wanted else ""
        return not self.lacking

    def pull_runs(self, folder: str) -> bool:
        """Copy the entries of one FOLDER of the run cache (relative to the cache); returns whether there were any. Raises Unreadable.

        Where the workspace demands signed runs, others are left where they are, and `refused` says why.
        """
        answer = self._ask(self._runs_request(folder))
        self.refused += answer["refused"]
        return bool(answer["found"])

    def pull_run_records(self, folder: str) -> bool:
        """As `pull_runs`, for a FOLDER that says when and where runs took place: no result depends on that, and nobody signs it."""
        return bool(self._ask({"folder": folder, "allowed": None})["found"])

    def look_ahead(
        self, runs: Iterable[str] = (), records: Iterable[str] = (), objects: Iterable[str] = (), listed: Iterable[str] = ()
    ) -> None:
        """Ask at once what will be asked one by one: `pull_runs` of each of RUNS, `pull_run_records` of each of RECORDS, and `pull` of each
        of OBJECTS and `has` of each of LISTED, alone. Raises Unreadable.
        """
        requests = [
            *map(self._runs_request, runs),
            *({"folder": folder, "allowed": None} for folder in records),
            *({"objects": [md5]} for md5 in objects),
            *({"has": [md5]} for md5 in listed),
        ]
        if requests:
            answers = self._ask({"each": requests})
            self._ahead |= {json.dumps(request): answer for request, answer in zip(requests, answers, strict=True)}

    def forget(self) -> None:
        """Drop what was asked ahead, and not asked for since: the next answer is a new one."""
        self._ahead.clear()

    def _runs_request(self, folder: str) -> dict[str, Any]:
        return {"folder": folder, "allowed": str(self._allowed) if self._allowed else None}

    @cached_property
    def _allowed(self) -> Path | None:
        return sharing(self.root).allowed_signers

    def push(self, md5s: Iterable[str]) -> int:
        """Copy objects of the cache that the remote lacks to it, a folder's listing after its files; returns the bytes sent.

        Raises Unreadable as `pull` does, and if the cache lacks an object.
        """
        wanted = list(md5s)
        return int(self._ask({"push": wanted})) if wanted else 0

    def push_runs(self, folder: str) -> None:
        """Copy the entries of one FOLDER of the run cache (relative to the cache) that the remote lacks to it. Raises Unreadable."""
        self._ask({"push_folder": folder})

    def write(self, name: str, text: str) -> None:
        """Write TEXT under NAME below `adapterbuild/` in the remote, replacing what is there. Raises Unreadable."""
        self._ask({"write": name, "text": text})

    def texts(self, names: Iterable[str]) -> dict[str, str]:
        """The texts under those of NAMES that the remote has. Raises Unreadable."""
        wanted = list(names)
        found: dict[str, str] = self._ask({"texts": wanted}) if wanted else {}
        return found

    def put(self, file: Path, name: str) -> int:
        """Copy FILE to NAME below `adapterbuild/` in the remote, unless there is one; returns the bytes sent. Raises Unreadable."""
        return int(self._ask({"put": str(file), "as": name}))

    def get(self, name: str, file: Path) -> bool:
        """Copy NAME below `adapterbuild/` in the remote to FILE; returns whether there is one. Raises Unreadable."""
        return bool(self._ask({"get": name, "to": str(file)}))

    def remove(self, names: Iterable[str]) -> None:
        """Remove those of NAMES below `adapterbuild/` in the remote that exist. Raises Unreadable."""
        if wanted := list(names):
            self._ask({"remove": wanted})

    def _ask(self, request: dict[str, Any]) -> Any:
        """The answer to REQUEST."""
        if self.failed:
            raise Unreadable(self.failed, self._permanent)
        if self._ahead and (asked := json.dumps(request)) in self._ahead:
            return self._ahead.pop(asked)
        try:
            return self._answer(request)
        except Unreadable as error:
            self.failed, self._permanent = str(error), error.permanent
            self.close()
            raise
        except BaseException:
            # ^C: the next request must not get the answer of this one.
            self.close()
            raise

    def _answer(self, request: dict[str, Any]) -> Any:
        process = self._process = self._process or self._started()
        assert process.stdin and process.stdout
        try:
            process.stdin.write(json.dumps(request).encode() + b"\n")
            process.stdin.flush()
        except BrokenPipeError:
            raise Unreadable("the process that asks it has ended") from None
        for answer in self._answers(process.stdout.fileno()):
            if "error" in answer:
                raise Unreadable(answer["error"], answer["permanent"])
            if "answer" in answer:
                return answer["answer"]
        raise Unreadable("the process that asks it has ended")

    def _answers(self, pipe: int) -> Iterator[dict[str, Any]]:
        limit = patience()
        while True:
            line, mark, rest = self._unread.partition(b"\n")
            if mark:
                self._unread = rest
                yield json.loads(line)
                continue
            ready, _, _ = select.select([pipe], [], [], limit)
            if not ready:
                raise Unreadable(f"no answer for {limit:g} s")
            data = os.read(pipe, 65536)
            if not data:
                return
            self._unread += data

    def _started(self) -> "subprocess.Popen[bytes]":
        environment = os.environ | {PARENT: named(), "DVC_NO_ANALYTICS": "1"}
        command = ours("engine.dvc.remote", str(self.root))
        return subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the subprocess."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            for pipe in (self._process.stdin, self._process.stdout):
                if pipe is not None:
                    with contextlib.suppress(BrokenPipeError):
                        pipe.close()
            self._process, self._unread = None, b""


def main(root: Path) -> int:
    """Answer requests from stdin until it ends."""
    # A request may block forever.
    die_with_parent(signal.SIGKILL)
    for number in (signal.SIGINT, signal.SIGTERM):
        # A terminal or a scheduler signals all processes; the one that asks decides, and may have something to save.
        signal.signal(number, signal.SIG_IGN)
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    # Keep what libraries print out of the answers.
    os.dup2(2, 1)
    signs = _Signs(answers)
    asking: _Asking | None = None
    for line in sys.stdin:
        try:
            asking = asking or _Asking(root, signs)
            answer: dict[str, Any] = {"answer": asking.answer(json.loads(line))}
        except Exception as error:
            # File systems of remotes raise arbitrary exceptions.
            said = error.problems[0].what if isinstance(error, UserError) else " ".join(str(error).split())
            answer = {"error": said or type(error).__name__, "permanent": _is_permanent(error)}
        signs.say(answer)
    return 0


def _is_permanent(error: BaseException) -> bool:
    """Whether a repeated request would fail in the same way."""
    if isinstance(error, UserError | PermissionError) or type(error).__name__ in _REFUSALS:
        return True
    if isinstance(error, OSError) and error.errno == errno.EROFS:
        return True
    return error.__cause__ is not None and _is_permanent(error.__cause__)


@dataclass
class _Signs:
    """Sends answers, and signs of progress between them."""

    stream: Any
    _last: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def say(self, answer: dict[str, Any]) -> None:
        with self._lock:
            self.stream.write(json.dumps(answer) + "\n")
            self.stream.flush()

    def arriving(self) -> None:
        if (now := time.monotonic()) - self._last > _BETWEEN_SIGNS:
            self._last = now
            self.say({"arriving": True})


class _Asking:
    """The default remote, as DVC opens it."""

    def __init__(self, root: Path, signs: _Signs) -> None:
        from dvc.repo import Repo

        repo = Repo(str(root))
        # The run cache is where DVC 2 stored its objects.
        self._runs = repo.cloud.get_remote_odb(None, "build", hash_name="md5-dos2unix")
        self._objects = repo.cloud.get_remote_odb(None, "build", hash_name="md5")
        self._cache = cache_settings(root)
        self._signs = signs
        if self._runs.fs.protocol == "s3":
            self._check_bucket(self._runs.fs)

    def _check_bucket(self, fs: Any) -> None:
        """Raise UserError if there is no bucket: each object in it would look like one that is missing."""
        bucket, _, _ = fs.fs.split_path(self._runs.path)
        # Whoever may not ask for the bucket itself may still read and write in it.
        with contextlib.suppress(PermissionError):
            try:
                fs.fs.call_s3("head_bucket", Bucket=bucket)
            except FileNotFoundError:
                raise UserError(f"there is no bucket '{bucket}'") from None

    def answer(self, request: dict[str, Any]) -> Any:
        """What the method of `Remote` that sent REQUEST returns."""
        if self._runs.fs.protocol == "local" and not Path(self._runs.path).is_dir():
            # A folder that is not mounted is no empty store; it may be mounted again.
            raise FileNotFoundError(f"folder not found: {self._runs.path}")
        # Other processes write too; some file systems remember what they have listed.
        self._runs.fs.fs.invalidate_cache()
        if "each" in request:
            with ThreadPoolExecutor(_AT_ONCE) as pool:
                return list(pool.map(self._answer, request["each"]))
        return self._answer(request)

    def _answer(self, request: dict[str, Any]) -> Any:
        match request:
            case {"folder": folder, "allowed": allowed}:
                return self._folder(folder, Path(allowed) if allowed else None)
            case {"objects": md5s}:
                # Request all of them: the next request, or another build, finds what has arrived.
                return next(iter([lacking for md5 in md5s if (lacking := self._object(md5))]), "")
            case {"has": md5s}:
                return self._has(md5s)
            case {"push": md5s}:
                return sum(self._push_object(md5) for md5 in md5s)
            case {"push_folder": folder}:
                # Runs of earlier releases may have left no record of their own.
                found = self._cache.folder / folder
                for path in sorted(found.iterdir()) if found.is_dir() else ():
                    self._signs.arriving()
                    self._upload(path, self._runs.fs, self._runs.fs.join(self._runs.path, *folder.split("/"), path.name))
            case {"write": name, "text": text}:
                self._write(name, text)
            case {"texts": names}:
                return self._texts(names)
            case {"put": path, "as": name}:
                return self._upload(Path(path), self._runs.fs, self._name(name))
            case {"get": name, "to": path}:
                try:
                    self._fetch(self._runs.fs, self._name(name), Path(path))
                except FileNotFoundError:
                    return False
                return True
            case {"remove": names}:
                for name in names:
                    self._signs.arriving()
                    with contextlib.suppress(FileNotFoundError):
                        self._runs.fs.remove(self._name(name))
        return None

    def _has(self, md5s: Sequence[str]) -> str:
        """Which object is lacking, folders with all their files; empty if none is."""
        wanted = set(md5s)
        for listing in [md5 for md5 in md5s if md5.endswith(".dir")]:
            target = self._cache.folder / dvcfile.object_path(listing)
            try:
                self._bring(listing, target)
            except FileNotFoundError:
                return _missing(listing)
            if (files := _listed(target)) is None:
                return _damaged(listing)
            wanted |= files
        unknown = [md5 for md5 in sorted(wanted) if not (self._cache.folder / dvcfile.object_path(md5)).exists()]
        if self._objects.fs.protocol == "local":
            # DVC would hash what is there, which takes as long as to bring it; what is brought is hashed anyway.
            lacking = [md5 for md5 in unknown if not self._objects.fs.exists(self._objects.oid_to_path(md5))]
        else:
            # DVC asks for many at once.
            lacking = sorted({*unknown} - {*self._objects.oids_exist(unknown, progress=lambda *_: self._signs.arriving())})
        return _missing(lacking[0]) if lacking else ""

    def _push_object(self, md5: str) -> int:
        """Send an object, a folder with all its files, unless the remote has it; the bytes sent."""
        fs, target, source = self._objects.fs, self._objects.oid_to_path(md5), self._cache.folder / dvcfile.object_path(md5)
        self._signs.arriving()
        # The listing comes last, so a remote that has it has all its files.
        if fs.exists(target):
            return 0
        if not source.exists():
            raise UserError(f"the cache has no object {md5}", hint="run: engine plan")
        files = dict.fromkeys(dvcfile.parse_tree(source.read_bytes()).values()) if md5.endswith(".dir") else {}
        return sum(self._push_object(file) for file in files) + self._upload(source, fs, target)

    def _upload(self, source: Path, fs: Any, target: str) -> int:
        """Copy one file to the remote, unless it is there, under its name only once it is whole; the bytes sent."""
        if fs.exists(target):
            return 0
        fs.makedirs(fs.parent(target))
        if fs.protocol == "local":
            there = aside(Path(target))
            try:
                copy(source, there, self._signs.arriving)
                there.replace(target)
            finally:
                there.unlink(missing_ok=True)
        elif fs.protocol in ("ssh", "sftp"):
            there = fs.join(fs.parent(target), aside(Path(fs.name(target))).name)
            fs.put_file(str(source), there, callback=_arriving(self._signs))
            fs.mv(there, target)
        else:
            fs.put_file(str(source), target, callback=_arriving(self._signs))
        return source.stat().st_size

    def _name(self, name: str) -> str:
        path: str = self._runs.fs.join(self._runs.path, "adapterbuild", *name.split("/"))
        return path

    def _write(self, name: str, text: str) -> None:
        fs, target = self._runs.fs, self._name(name)
        with tempfile.NamedTemporaryFile() as file:
            file.write(text.encode())
            file.flush()
            there = fs.join(fs.parent(target), aside(Path(fs.name(target))).name)
            fs.makedirs(fs.parent(target))
            if fs.protocol == "local":
                fs.put_file(file.name, there)
                Path(there).replace(target)
            else:
                fs.put_file(file.name, target)

    def _texts(self, names: Sequence[str]) -> dict[str, str]:
        """The texts under NAMES that exist; a missing one costs one request."""
        found = {}
        for name in names:
            self._signs.arriving()
            with contextlib.suppress(FileNotFoundError), self._runs.fs.open(self._name(name), "rb") as file:
                found[name] = file.read().decode()
        return found

    def _folder(self, inside: str, allowed: Path | None) -> dict[str, Any]:
        """Bring the entries of one folder of the run cache, if they are given those only that somebody in ALLOWED has signed."""
        fs = self._runs.fs
        if {"http", "https"} & {fs.protocol}:
            # HTTP has no listings, and its file system cannot tell an unreachable server from an empty one.
            raise UserError("remotes over HTTP have no run cache")
        signatures = self._listed(self._name(inside.replace("runs", "signatures", 1))) if allowed else []
        found, refused = False, []
        for path in self._listed(fs.join(self._runs.path, *inside.split("/"))):
            self._signs.arriving()
            run = f"{inside}/{fs.name(path)}"
            target = self._cache.folder / run
            if allowed and not target.exists():
                try:
                    self._check_signed(run, [each for each in signatures if fs.name(each).startswith(f"{fs.name(path)}.")], allowed)
                    self._copy(fs, path, target, self._cache.file_mode, partial(_is_run, run=run))
                    if not target.exists():
                        raise Untrusted("it was edited after it was signed")
                except Untrusted as error:
                    refused.append(str(error))
                    continue
            self._copy(fs, path, target, self._cache.file_mode)
            found = True
        return {"found": found, "refused": refused}

    def _listed(self, folder: str) -> list[str]:
        """The files in a folder of the remote."""
        try:
            return list(self._runs.fs.find(folder)) if self._runs.fs.exists(folder) else []
        except FileNotFoundError:
            return []

    def _check_signed(self, run: str, signatures: Sequence[str], allowed: Path) -> None:
        """Raise Untrusted unless one of the SIGNATURES in the remote is one of RUN by somebody in ALLOWED."""
        why = Untrusted("it is not signed")
        for path in signatures:
            self._signs.arriving()
            with self._runs.fs.open(path, "rb") as file:
                text = file.read(_LONGEST_SIGNATURE).decode(errors="replace")
            try:
                principal(run, text, RUN, allowed)
            except Untrusted as error:
                why = error
            else:
                return
        raise why

    def _object(self, md5: str) -> str:
        """Bring an object, a folder with all its files; returns which one is lacking, empty if none is."""
        target = self._cache.folder / dvcfile.object_path(md5)
        if not dvcfile.is_object(md5):
            raise UserError(f"'{md5}' is not the md5 of an object")
        self._signs.arriving()
        whole = target.exists() and file_md5(target, self._signs.arriving) == md5.removesuffix(".dir")
        if not whole:
            target.unlink(missing_ok=True)
            try:
                self._bring(md5, target)
            except FileNotFoundError:
                return _missing(md5)
        if not target.exists():
            return _damaged(md5)
        if not md5.endswith(".dir"):
            return ""
        files = _listed(target)
        if files is None:
            return _damaged(md5)
        # The others are brought too: the next request, or another build, finds them.
        return next(iter([lacking for file in sorted(files) if (lacking := self._object(file))]), "")

    def _bring(self, md5: str, target: Path) -> None:
        """Copy one object to TARGET, if its content matches its md5."""
        path, right = self._objects.oid_to_path(md5), md5.removesuffix(".dir")
        self._copy(self._objects.fs, path, target, dvcfile.OBJECT_MODE, lambda file: file_md5(file, self._signs.arriving) == right)

    def _fetch(self, fs: Any, source: str, target: Path) -> None:
        """Copy one file of the remote to TARGET."""
        if fs.protocol == "local":
            # DVC shows no progress of files below a gigabyte.
            copy(Path(source), target, self._signs.arriving)
        else:
            fs.get_file(source, str(target), callback=_arriving(self._signs))

    def _copy(self, fs: Any, source: str, target: Path, mode: int, is_right: Callable[[Path], bool] = lambda _: True) -> None:
        """Copy one file to a temporary name, then move it into place; a file that is not right is discarded."""
        if target.exists():
            return
        make_folder(target.parent, self._cache)
        arriving = aside(target)
        try:
            self._fetch(fs, source, arriving)
            if is_right(arriving):
                arriving.chmod(mode)
                arriving.replace(target)
        finally:
            arriving.unlink(missing_ok=True)


def _missing(md5: str) -> str:
    return f"{dvcfile.object_path(md5)} is missing"


def _damaged(md5: str) -> str:
    return f"{dvcfile.object_path(md5)} is damaged"


def _is_run(file: Path, run: str) -> bool:
    """Whether FILE is the entry of the run cache whose path is RUN, which digests the run's command, inputs and outputs."""
    try:
        record = dvcfile.parse_record(file.read_bytes())
    except ValueError:
        return False
    return dvcfile.run_path(record) == run


def _listed(listing: Path) -> set[str] | None:
    """The md5s in a folder's listing; None if it is missing, or is none although its md5 is right: somebody else has written it."""
    try:
        return set(dvcfile.parse_tree(listing.read_bytes()).values())
    except (FileNotFoundError, ValueError):
        return None


def _arriving(signs: _Signs) -> Any:
    """A callback of fsspec that shows that a transfer goes on."""
    from fsspec.callbacks import Callback  # type: ignore[import-untyped]

    class Arriving(Callback):  # type: ignore[misc]
        def call(self, *_: Any, **__: Any) -> None:
            signs.arriving()

    return Arriving()


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
