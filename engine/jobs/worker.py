"""Runs a sealed job on this machine: its content comes from the store and goes back there, and the record of the run comes last.

It needs no specs, no git and no DVC repository. A worker that is killed leaves nothing that counts: whoever looks for the run finds its
record, which is written when everything else is there, or none.
"""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from engine.core.digests import scratch_name
from engine.core.errors import UserError, no_room
from engine.core.graph import ARTIFACTS, METRICS, PLOTS
from engine.dvc import dvcfile
from engine.dvc.dvcfile import Record
from engine.dvc.hashing import Hashes
from engine.dvc.recording import Recorder
from engine.dvc.remote import Remote, Unreadable
from engine.dvc.run_records import folder_of
from engine.dvc.writing import file_md5, replace_with
from engine.jobs.sealed import Ended, SealedJob, ended_path, read
from engine.jobs.store import PATIENCE_SECONDS, Store
from stages.process.parent import PARENT, named
from stages.process.starting import ours

_CHECKPOINT_SECONDS = 30.0
_LOG_BYTES = 20_000
_SECRETS = (
    "access_key_id",
    "secret_access_key",
    "session_token",
    "password",
    "keyfile",
    "token",
    "connection_string",
    "account_key",
    "sas",
)


@dataclass(frozen=True)
class StoreAddress:
    """Where the store is: a URL as DVC's remotes have it, and options such as `endpointurl`; credentials stay where DVC looks for them."""

    url: str
    options: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in self.options:
            if any(name.endswith(secret) for secret in _SECRETS):
                what = f"store option {name} is a secret, and would stand in the process list"
                raise UserError(what, hint="set it in the environment or in the user's configuration of the worker's machine")

    @property
    def folder(self) -> Path | None:
        """The folder, if the store is one; else None."""
        return None if "://" in self.url else Path(self.url)

    def config(self) -> str:
        """DVC's configuration of a workspace that has this store as its remote."""
        options = "".join(f"    {name} = {value}\n" for name, value in {"url": self.url, **self.options}.items())
        return f"[core]\n    no_scm = true\n    remote = store\n['remote \"store\"']\n{options}"


@dataclass
class Worker:
    """One attempt at a job, in a folder of its own."""

    address: StoreAddress
    attempt: str
    cache: Path
    """The folder with the objects that earlier jobs on this machine have read, if the store is no folder itself."""
    patience: float = PATIENCE_SECONDS
    """Seconds for which a store that fails is tried again."""

    def run(self, key: str, root: Path) -> int:
        """Run the job KEY in the empty folder ROOT; returns the exit status of its step, or 1 where it could not begin."""
        began = time.monotonic()
        with Log() as log:
            try:
                _make_workspace(root, self.address, self.cache)
                with Remote(root) as remote:
                    store = Store(remote, log.say, self.patience)
                    try:
                        status = self._run(key, root, store, log)
                    except OSError as error:
                        if (full := no_room(error)) is None:
                            raise
                        log.say(str(full))
                        status = 1
                    except UserError as error:
                        log.say(str(error))
                        status = 1
                    end = Ended(status, socket.gethostname(), round(time.monotonic() - began, 3), log.end())
                    store.write(ended_path(key, self.attempt), end.text())
                    return status
            except UserError as error:
                # Without an end in the store, the build learns from the scheduler that the job is gone.
                log.say(str(error))
                return 1

    def _run(self, key: str, root: Path, store: Store, log: "Log") -> int:
        job = read(store, key)
        hashes = Hashes(root)
        recorder = Recorder(root, hashes)
        _bring_inputs(job, store, recorder)
        scratch = root / ARTIFACTS / "scratch" / _scratch(job)
        checkpoints = Checkpoints(job, scratch, recorder)
        if steps := checkpoints.restore(store):
            log.say(f"checkpoints of an earlier attempt: {', '.join(steps)}")
        with checkpoints.kept_in_store(root):
            status = _step(job, root, log)
        if status:
            checkpoints.save(store)
            return status
        record = Record(job.command, job.reads, {path: recorder.keep(path, link=False) for path in job.outputs})
        statement = record.outputs[f"{ARTIFACTS}/{job.step}.provenance.json"].md5
        # Files that git tracks need not be in a store: the statement contains them.
        store.push(entry.md5 for path, entry in record.outputs.items() if not path.startswith((f"{METRICS}/", f"{PLOTS}/")))
        store.push_runs(folder_of(job.step, statement))
        recorder.write_run(record)
        store.push_runs(job.run_folder)
        return 0


def _make_workspace(root: Path, address: StoreAddress, cache: Path) -> None:
    """The least that the runner and DVC's remotes need."""
    objects = address.folder or cache
    if address.folder and not address.folder.is_dir():
        raise UserError(
            f"the store {address.url} is not a folder on {socket.gethostname()}",
            hint="mount it there, or use a store that this machine reaches",
        )
    (root / dvcfile.TEMPORARY).mkdir(parents=True)
    # Links: the step reads its inputs where they are, and content that several jobs read is on this disk once.
    text = f"{address.config()}[cache]\n    dir = {objects}\n    type = reflink,symlink,copy\n"
    (root / ".dvc" / "config").write_text(text, "utf-8")


def _bring_inputs(job: SealedJob, store: Store, recorder: Recorder) -> None:
    """Put everything that the step reads where it looks for it; raises UserError for content that the store lacks."""
    root = recorder.root
    for path, text in ((f"{dvcfile.IDENTITIES}/{job.step}.json", job.identity), (f"{dvcfile.RESOURCES}/{job.step}.json", job.resources)):
        replace_with(root / path, text.encode())
    for path, entry in job.inputs.items():
        if Path(path).is_absolute():
            found = recorder.hashes.entry(path)
            if found is None or found.md5 != entry.md5:
                what = f"{path} on {socket.gethostname()} {'does not exist' if found is None else 'differs from that of the build'}"
                raise UserError(what, hint="put the file into the workspace, or at the same place on every machine")
            continue
        if not store.pull([entry.md5]):
            raise UserError(f"the store lacks {path} ({entry.md5})", hint="start the build again: it sends what is missing")
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        recorder.check_out(path, entry, recorder.settings.links)
        if entry.executable:
            (root / path).chmod(0o755)


def _scratch(job: SealedJob) -> str:
    """The folder of the step's checkpoints, as the runner names it."""
    identity = json.loads(job.identity)
    paths = [f"{dvcfile.IDENTITIES}/{job.step}.json", *identity["inputs"].values()]
    return scratch_name(job.step, job.identity, {path: job.reads[path].md5 for path in paths})


def _step(job: SealedJob, root: Path, log: "Log") -> int:
    """Run the step's process; SIGTERM reaches it, so that a training saves its state. Returns its exit status."""
    environment = os.environ | {PARENT: named(), "DVC_NO_ANALYTICS": "1"}
    process = subprocess.Popen(
        ours("stages", job.kind, job.step),
        cwd=root,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert process.stdout
    with _handing_on(process):
        log.follow(process.stdout)
        return process.wait()


@contextlib.contextmanager
def _handing_on(process: "subprocess.Popen[bytes]") -> Iterator[None]:
    """Send SIGTERM and SIGINT on to PROCESS as SIGTERM."""

    def hand_on(*_: object) -> None:
        process.send_signal(signal.SIGTERM)

    before = {number: signal.signal(number, hand_on) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Log:
    """What a step writes: shown here, and its end kept for the driver."""

    def __init__(self) -> None:
        self._file: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed by __exit__

    def __enter__(self) -> "Log":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def say(self, text: str) -> None:
        """Write one line."""
        self._take(text.encode() + b"\n")

    def follow(self, stream: IO[bytes]) -> None:
        """Copy STREAM until it ends."""
        while data := os.read(stream.fileno(), 65536):
            self._take(data)

    def _take(self, data: bytes) -> None:
        self._file.write(data)
        sys.stderr.buffer.write(data)
        sys.stderr.buffer.flush()

    def end(self) -> str:
        """The last part of everything, as text."""
        size = self._file.seek(0, os.SEEK_END)
        self._file.seek(max(0, size - _LOG_BYTES))
        return self._file.read().decode("utf-8", "replace")


@dataclass
class Checkpoints:
    """What a step keeps in its scratch folder, in the store too, so that another machine can go on."""

    job: SealedJob
    folder: Path
    recorder: Recorder
    _sent: dict[str, str] = field(default_factory=dict)

    @property
    def _name(self) -> str:
        return f"checkpoints/{self.job.key[:2]}/{self.job.key}.json"

    def restore(self, store: Store) -> list[str]:
        """Put the files of the last attempt back; returns their names. What is not whole in the store is left out."""
        texts = store.texts([self._name])
        files: dict[str, str] = json.loads(texts[self._name]) if texts else {}
        if not files or not store.pull(files.values()):
            return []
        for name, md5 in files.items():
            (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(self.recorder.cache / dvcfile.object_path(md5), self.folder / name)
        self._sent = files
        return sorted(files)

    def save(self, store: Store | Remote) -> None:
        """Send what has changed; a file that is being written waits for the next time."""
        files: dict[str, str] = {}
        # A training writes its best weights before the checkpoint that counts on them, so they are read after it.
        for path in sorted(self._files(), key=lambda path: (not path.name.startswith("step-"), path)):
            with contextlib.suppress(FileNotFoundError, UserError):
                md5 = file_md5(path)
                self.recorder.keep_file(path, md5)
                files[str(path.relative_to(self.folder))] = md5
        if files and files != self._sent:
            store.push(files.values())
            store.write(self._name, json.dumps(files))
            self._sent = files

    def _files(self) -> list[Path]:
        found = self.folder.rglob("*") if self.folder.is_dir() else []
        return [path for path in found if path.is_file() and not path.name.startswith(".")]

    @contextlib.contextmanager
    def kept_in_store(self, root: Path) -> Iterator[None]:
        """Send checkpoints while the step runs, over a connection of their own; a store that fails costs only these copies."""
        ended = threading.Event()

        def send() -> None:
            with Remote(root) as remote:
                while not ended.wait(_CHECKPOINT_SECONDS):
                    with contextlib.suppress(Unreadable, OSError):
                        self.save(remote)

        thread = threading.Thread(target=send, daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
