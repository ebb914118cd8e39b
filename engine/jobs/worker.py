"""Runs a sealed job on this machine: its content comes from the store and goes back there, and the record of the run comes last.

It needs no specs, no git and no DVC repository. A worker that is killed leaves nothing that counts: whoever looks for the run finds its
record, which is written when everything else is there, or none.
"""

import contextlib
import fcntl
import json
import os
import re
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
from typing import IO, Any

from engine.core.digests import scratch_name
from engine.core.errors import UserError, no_room, visible
from engine.core.graph import ARTIFACTS, METRICS, PLOTS
from engine.dvc import dvcfile
from engine.dvc.dvcfile import Record
from engine.dvc.hashing import Hashes
from engine.dvc.recording import Recorder
from engine.dvc.remote import Remote, Unreadable
from engine.dvc.run_records import folder_of
from engine.dvc.signatures import CHECKPOINTS, RUN, Signer, fingerprint, signature_path
from engine.dvc.writing import file_md5, place, replace_with
from engine.jobs.sealed import Ended, SealedJob, ended_path, parsed_runs, read
from engine.jobs.store import PATIENCE_SECONDS, Store
from stages.process.job import PREEMPTED
from stages.process.parent import PARENT, named
from stages.process.starting import ours

_CHECKPOINT_SECONDS = 30.0
_WAIT_SECONDS = 0.2
"""Between looks at whether another job has fetched an object."""
_LOG_BYTES = 20_000
_LONGEST_LINE = 65_536
"""A line that is longer is shown in parts, so that a step cannot fill the memory with one."""
_FIRST_SECONDS = 5.0
"""How long a node that has failed leaves it to the first one to say why."""
_SIGNATURE = "-----BEGIN SSH SIGNATURE-----"
_SECRET = re.compile(
    r"secret|token|password|passphrase|keyfile|key_path|account_key|customer_key|(access|oss)_key_id|connection_string|sas$|auth_header"
    r"|credentialpath|credentials_file|json_file|kerb_ticket"
)
"""What the names of DVC's settings of a remote hold that are secrets, or lead to them."""
_HERE = ("url", "configpath", "cert_path", "version_aware", "worktree")
"""Settings that hold for this machine alone, or for what a store is not."""


@dataclass(frozen=True)
class StoreAddress:
    """Where the store is: a URL as DVC's remotes have it, and options such as `endpointurl`; credentials stay where DVC looks for them."""

    url: str
    options: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in self.options:
            if _SECRET.search(name):
                what = f"store option {name} is a secret, and would stand in the process list"
                raise UserError(what, hint="set it in the environment or in the user's configuration of the worker's machine")
        if re.match(r"\w+://[^/@]*:[^/@]*@", self.url):
            what = "the store's URL has a password, which would stand in the process list"
            raise UserError(what, hint="set it in the user's configuration of each machine: dvc remote modify --global")
        if any(character in text for text in (self.url, *self.options, *self.options.values()) for character in '\n\r"'):
            raise UserError("the store's URL and options must be one line each, without quotes")

    @classmethod
    def of(cls, remote: Mapping[str, str]) -> "StoreAddress":
        """The address of a REMOTE whose settings DVC's configuration has; secrets are looked for on each machine, as DVC does."""
        return cls(remote["url"], {name: value for name, value in remote.items() if name not in _HERE and not _SECRET.search(name)})

    @property
    def folder(self) -> Path | None:
        """The folder, if the store is one; else None."""
        return None if "://" in self.url else Path(self.url)

    def config(self) -> str:
        """DVC's configuration of a workspace that has this store as its remote."""
        # In quotes, `,` and `#` are part of a path.
        options = "".join(f'    {name} = "{value}"\n' for name, value in {"url": self.url, **self.options}.items())
        return f"[core]\n    no_scm = true\n    remote = store\n['remote \"store\"']\n{options}"


@dataclass
class Worker:
    """One attempt at a job, in a folder of its own."""

    address: StoreAddress
    attempt: str
    cache: Path
    """The folder with the objects that earlier jobs on this machine have read, if the store is no folder itself."""
    signer: Signer | None = None
    """Who signs what this worker sends; then only what has this signature counts as done, or as a checkpoint."""
    patience: float = PATIENCE_SECONDS
    """Seconds for which a store that fails is tried again."""
    _rank: int = 0
    """Which of the nodes that run the job together this one is."""

    def run(self, key: str, root: Path) -> int:
        """Run the job KEY in the empty folder ROOT; returns the exit status of its step, 1 where it could not begin, and 75 where this
        process was asked to stop: by SIGTERM or ^C, which a training answers by saving its state.

        A job on several nodes runs so on each, with MASTER_ADDR and NODE_RANK set; the first one sends the results and the checkpoints.
        """
        if not re.fullmatch(r"[\w-]{1,40}", self.attempt):
            raise UserError(f"an attempt has a name of letters, digits and '-', got '{self.attempt}'")
        began = time.monotonic()
        with Log() as log, StopRequest() as stop:
            try:
                _make_workspace(root, self.address, self.cache)
                with Remote(root) as remote:
                    store = Store(remote, log.say, self.patience)
                    try:
                        status = self._run(key, root, store, log, stop)
                    except Stopped:
                        log.say("stopped before its step began")
                        status = PREEMPTED
                    except OSError as error:
                        log.say(str(no_room(error) or f"{type(error).__name__}: {error}"))
                        status = 1
                    except UserError as error:
                        log.say(str(error))
                        status = 1
                    if log.step:
                        word = {0: "done", PREEMPTED: "stopped"}.get(status, "failed")
                        log.event(word, log.step, f"{time.monotonic() - began:.0f} s")
                    end = Ended(status, socket.gethostname(), round(time.monotonic() - began, 3), log.end())
                    self._tell(key, end, store)
                    # A node that fails ends the others, and the first one may still send checkpoints.
                    return 0 if self._rank and status == PREEMPTED else status
            except UserError as error:
                # Without an end in the store, the build learns from the scheduler that the job is gone.
                log.say(str(error))
                return 1

    def _tell(self, key: str, end: Ended, store: Store) -> None:
        """Write how the attempt ended: the first node's worker does, and that of another one if it has failed and the first does not."""
        path = ended_path(key, self.attempt)
        if self._rank:
            if end.status in (0, PREEMPTED):
                return
            until = time.monotonic() + _FIRST_SECONDS
            while time.monotonic() < until:
                if store.texts([path]):
                    return
                time.sleep(0.5)
        elif end.status == PREEMPTED and store.texts([path]):
            # The failure of another node has stopped this one.
            return
        store.write(path, end.text())

    def _run(self, key: str, root: Path, store: Store, log: "Log", stop: "StopRequest") -> int:
        with stop.at_once():
            if self.signer:
                log.say(f"signs as {fingerprint(self.signer.public)}")
            job = read(store, key)
            if job.nodes > 1:
                from stages.train.distributed.hosts import hosts

                self._rank = hosts(job.nodes, os.environ).rank or 0
            hashes = Hashes(root)
            recorder = Recorder(root, hashes)
            if _is_done(job, store, recorder.cache, self.signer):
                log.say(f"the store has the result of {job.step}: nothing to run")
                return 0
            _bring_inputs(job, store, recorder, shared=self.address.folder is None)
            scratch = root / ARTIFACTS / "scratch" / _scratch(job)
            checkpoints = Checkpoints(job, scratch, root / dvcfile.TEMPORARY / "checkpoints", self.signer)
            # The first node hands checkpoints to the others.
            if not self._rank and (steps := checkpoints.restore(store)):
                log.say(f"checkpoints of an earlier attempt: {', '.join(steps)}")
        with contextlib.nullcontext() if self._rank else checkpoints.kept_in_store(root):
            log.step = job.step
            log.event("run", job.step, f"on {socket.gethostname()}")
            status = _step(job, root, log, stop)
        if self._rank and not status:
            return 0
        if status:
            if not self._rank:
                checkpoints.save(store)
            # A step that cannot save its state, or could not yet, ends with a status of its own.
            return PREEMPTED if stop.asked else status
        record = Record(job.command, job.reads, {path: recorder.keep(path, link=False) for path in job.outputs})
        statement = record.outputs[f"{ARTIFACTS}/{job.step}.provenance.json"].md5
        # Files that git tracks need not be in a store: the statement contains them.
        store.push(entry.md5 for path, entry in record.outputs.items() if not path.startswith((f"{METRICS}/", f"{PLOTS}/")))
        store.push_runs(folder_of(job.step, statement))
        if self.signer:
            # First: a run without a signature counts for nobody.
            run = dvcfile.run_path(record)
            store.write(signature_path(run, self.signer.public), self.signer.sign(run, RUN))
        recorder.write_run(record)
        store.push_runs(job.run_folder)
        checkpoints.remove(store)
        return 0


def _is_done(job: SealedJob, store: Store, cache: Path, signer: Signer | None) -> bool:
    """Whether the store has a whole run of JOB, which SIGNER has signed if there is one: of another build, or of an attempt whose end did
    not reach the one that waits."""
    if not store.pull_runs(job.run_folder):
        return False
    needed = (f"{ARTIFACTS}/{job.step}", f"{ARTIFACTS}/{job.step}.provenance.json")
    runs = [run for run in parsed_runs(cache / job.run_folder) if set(run.outputs) == set(job.outputs)]
    if signer:
        names = {signature_path(dvcfile.run_path(run), signer.public): run for run in runs}
        signed = store.texts(names)
        runs = [names[name] for name, text in signed.items() if signer.has_signed(dvcfile.run_path(names[name]), text, RUN)]
    return any(store.pull(run.outputs[path].md5 for path in needed) for run in runs)


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
    text = f'{address.config()}[cache]\n    dir = "{objects}"\n    type = reflink,symlink,copy\n'
    (root / ".dvc" / "config").write_text(text, "utf-8")


def _bring_inputs(job: SealedJob, store: Store, recorder: Recorder, shared: bool) -> None:
    """Put everything that the step reads where it looks for it; raises UserError for content that the store lacks.

    SHARED: the cache is this machine's, and other jobs on it fetch what they read into it, too.
    """
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
        with _alone(recorder.cache, entry.md5) if shared else contextlib.nullcontext():
            has = store.pull([entry.md5])
        if not has:
            raise UserError(f"the store lacks {path} ({entry.md5})", hint="start the build again: it sends what is missing")
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        # The mode of a link would be that of the object, which everybody reads.
        recorder.check_out(path, entry, ("copy",) if entry.executable else recorder.settings.links)
        if entry.executable:
            (root / path).chmod(0o755)


@contextlib.contextmanager
def _alone(cache: Path, md5: str) -> Iterator[None]:
    """While no other job on this machine fetches the object MD5: jobs that start together would each transfer it.

    A file system without locks does without; a job that dies holds none.
    """
    folder = cache / "locks"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / md5[:2]).open("a") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                time.sleep(_WAIT_SECONDS)
                continue
            except OSError:
                pass
            break
        yield


def _scratch(job: SealedJob) -> str:
    """The folder of the step's checkpoints, as the runner names it."""
    identity = json.loads(job.identity)
    paths = [f"{dvcfile.IDENTITIES}/{job.step}.json", *identity["inputs"].values()]
    return scratch_name(job.step, job.identity, {path: job.reads[path].md5 for path in paths})


def _step(job: SealedJob, root: Path, log: "Log", stop: "StopRequest") -> int:
    """Run the step's process; a request to stop reaches it as SIGTERM. Returns its exit status."""
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
    with stop.handed_to(process):
        log.follow(process.stdout)
        return process.wait()


class Stopped(BaseException):
    """This process was asked to stop while nothing would be lost by it."""


class StopRequest:
    """SIGTERM and SIGINT to a worker: before its step, they end it; then they are handed on; after, the step's results are sent first."""

    def __init__(self) -> None:
        self.asked = False
        self._at_once = False
        self._process: subprocess.Popen[bytes] | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "StopRequest":
        self._before = {number: signal.signal(number, self._note) for number in (signal.SIGTERM, signal.SIGINT)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, *_: object) -> None:
        self.asked = True
        if self._at_once:
            self._at_once = False
            raise Stopped
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)

    @contextlib.contextmanager
    def at_once(self) -> Iterator[None]:
        """Context in which a request raises Stopped."""
        self._at_once = True
        try:
            if self.asked:
                raise Stopped
            yield
        finally:
            self._at_once = False

    @contextlib.contextmanager
    def handed_to(self, process: "subprocess.Popen[bytes]") -> Iterator[None]:
        """Context in which a request reaches PROCESS, one that came since it was started too."""
        self._process = process
        try:
            if self.asked:
                process.send_signal(signal.SIGTERM)
            yield
        finally:
            self._process = None


class Log:
    """What a step writes: shown here line by line, as a terminal may print it, and its end kept for the driver as it is."""

    def __init__(self) -> None:
        self.step = ""
        """The job's step, once it runs."""
        self._file: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed by __exit__
        self._open = b""
        """The line that has no end yet."""

    def __enter__(self) -> "Log":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def event(self, word: str, step: str, remark: str) -> None:
        """Show a line as a build does for an event of a step; the driver, which has its own, is not told."""
        self._show(f"{word:<9}{step}   {remark}".encode() + b"\n")

    def say(self, text: str) -> None:
        """Write one line."""
        self._take(text.encode("utf-8", "replace") + b"\n")

    def follow(self, stream: IO[bytes]) -> None:
        """Copy STREAM until it ends."""
        while data := os.read(stream.fileno(), 65536):
            self._take(data)
        self._take(b"", ended=True)

    def _take(self, data: bytes, ended: bool = False) -> None:
        self._file.write(data)
        # A bar of a library is drawn again after each carriage return.
        *whole, self._open = re.split(rb"[\r\n]", self._open + data)
        if self._open and (ended or len(self._open) > _LONGEST_LINE):
            whole, self._open = [*whole, self._open], b""
        self._show(b"".join(line + b"\n" for line in whole if line))

    @staticmethod
    def _show(lines: bytes) -> None:
        """Rows may hold sequences that a terminal would obey, and so may what libraries say of them."""
        sys.stderr.buffer.write(visible(lines.decode("utf-8", "replace")).encode("utf-8", "replace"))
        sys.stderr.buffer.flush()

    def end(self) -> str:
        """The last part of everything, as text."""
        size = self._file.seek(0, os.SEEK_END)
        self._file.seek(max(0, size - _LOG_BYTES))
        return self._file.read().decode("utf-8", "replace")


@dataclass
class Checkpoints:
    """What a step keeps in its scratch folder, in the store too, so that another machine can go on.

    They are kept apart from the store's content, so that they can be removed: those of a training would soon outweigh its results.
    """

    job: SealedJob
    folder: Path
    aside: Path
    """A folder on the same disk, for files that are being sent."""
    signer: Signer | None = None
    _sent: dict[str, str] = field(default_factory=dict)

    @property
    def _place(self) -> str:
        return f"checkpoints/{self.job.key[:2]}/{self.job.key}"

    @property
    def _list(self) -> str:
        return saved_path(self.job.key)

    def restore(self, store: Store) -> list[str]:
        """Put the files of the last attempt back; returns their names. Where one is not whole in the store, none is put back."""
        texts = store.texts([self._list])
        text, mark, rest = texts.get(self._list, "").partition(_SIGNATURE)
        if self.signer and not self.signer.has_signed(f"{self._place}\n{text}", mark + rest, CHECKPOINTS):
            return []
        files = _checkpoint_files(text)
        self.aside.mkdir(parents=True, exist_ok=True)
        for md5 in set(files.values()):
            copy = self.aside / md5
            if not store.get(f"{self._place}/{md5}", copy) or file_md5(copy) != md5:
                return []
        for name, md5 in files.items():
            (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(self.aside / md5, self.folder / name)
        self._sent = files
        shutil.rmtree(self.aside)
        return sorted(files)

    def save(self, store: Store | Remote) -> None:
        """Send what has changed, and remove what it replaces; a file that is being written waits for the next time."""
        files: dict[str, str] = {}
        self.aside.mkdir(parents=True, exist_ok=True)
        # A training writes its best weights before the checkpoint that counts on them, so they are read after it.
        for path in sorted(self._files(), key=lambda path: (not path.name.startswith("step-"), path)):
            copy = self.aside / "sent"
            copy.unlink(missing_ok=True)
            with contextlib.suppress(FileNotFoundError):
                # The step may replace or remove the file while it is sent.
                place(path, copy, ("hardlink", "copy"))
                md5 = file_md5(copy)
                if md5 not in self._sent.values():
                    store.put(copy, f"{self._place}/{md5}")
                    if file_md5(copy) != md5:
                        store.remove([f"{self._place}/{md5}"])
                        continue
                files[str(path.relative_to(self.folder))] = md5
        if files and files != self._sent:
            text = json.dumps(files)
            # With its place: checkpoints of another job are no checkpoints of this one.
            signature = self.signer.sign(f"{self._place}\n{text}", CHECKPOINTS) if self.signer else ""
            store.write(self._list, text + signature)
            replaced = set(self._sent.values()) - set(files.values())
            self._sent = files
            store.remove(f"{self._place}/{md5}" for md5 in replaced)

    def remove(self, store: Store) -> None:
        """Remove them from the store: the step is done."""
        # First the list, which counts on the files.
        store.remove([self._list])
        store.remove(f"{self._place}/{md5}" for md5 in set(self._sent.values()))

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
                    with contextlib.suppress(Unreadable, OSError, UserError):
                        # It may have failed the last time.
                        remote.failed = ""
                        self.save(remote)

        thread = threading.Thread(target=send, daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()


def saved_path(key: str) -> str:
    """Where the store lists what the job KEY has saved."""
    return f"checkpoints/{key[:2]}/{key}.json"


def saved_in(text: str, before: str = "") -> str:
    """How far a job has come that has saved what TEXT lists: a training's step, of others a digest; BEFORE, if that is not further."""
    files = _checkpoint_files(text.partition(_SIGNATURE)[0])
    if not files:
        return before
    # What a training saves at one step may differ in the seconds that it took.
    steps = [found[1] for name in files if (found := re.search(r"step-(\d+)", name))]
    return max(*steps, before if before.isdigit() else "") if steps else dvcfile.text_md5(json.dumps(files, sort_keys=True))


def _checkpoint_files(text: str) -> dict[str, str]:
    """The files of a list of checkpoints; none if it is no such list: what cannot be trusted is computed again."""
    try:
        found = json.loads(text or "{}")
        whole = all(dvcfile.is_inside(name) and dvcfile.is_object(md5) and not md5.endswith(".dir") for name, md5 in found.items())
    except (ValueError, TypeError, AttributeError):
        return {}
    return found if whole else {}
