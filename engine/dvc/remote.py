"""Pulls results that a build would otherwise compute from DVC's remote into the caches, step by step, so that others' runs are restored.

A subprocess (`engine.dvc.remote`) talks to the remote: DVC and its file systems take a second to import, and a hanging request can
be abandoned. Requests and answers are JSON values, one per line; during a transfer the process sends signs of progress. A remote that
fails or does not answer in time is reported once, and everything else is built here.
"""

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engine.core.errors import UserError
from engine.core.graph import Graph, Step
from engine.dvc import dvcfile
from engine.dvc.config import cache_settings
from engine.dvc.disk import Disk
from engine.dvc.dvcfile import Entry
from engine.dvc.run_records import folder_of
from engine.dvc.writing import file_md5, make_folder
from engine.plan.decide import Action, Planner
from engine.plan.project import Project
from stages.process.parent import PARENT, die_with_parent, named
from stages.process.starting import ours

PATIENCE = "ADAPTERBUILD_REMOTE_TIMEOUT"
"""The environment variable for the timeout of the remote in seconds."""

_SECONDS = 30.0
_BETWEEN_SIGNS = 1.0


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


@dataclass
class Puller:
    """Pulls from the default remote of a workspace, until it fails."""

    root: Path
    store: Disk
    warn: Callable[[str], None]
    _process: "subprocess.Popen[bytes] | None" = None
    _unread: bytes = b""
    _given_up: bool = False
    _asked: set[str] = field(default_factory=set)

    def bring(self, step: Step, planner: Planner, action: Action) -> bool:
        """Pull an earlier run of STEP, if all its inputs are known; returns whether the remote had one.

        If STEP can be restored without the remote (ACTION), only the record of its run is pulled."""
        needs, unknown = planner.needs(step)
        if unknown or self._given_up or step.name in self._asked or action not in (Action.RUN, Action.RESTORE):
            return False
        self._asked.add(step.name)
        try:
            if action is Action.RUN:
                return self._run(step, needs)
            outputs = planner.outcomes[step.name]
            if outputs and self.store.run_record(step.name, outputs[step.provenance].md5) is None:
                self._ask({"folder": folder_of(step.name, outputs[step.provenance].md5)})
        except _Silent as error:
            self.close()
            self._given_up = True
            hint = f"building here instead; to see why: dvc pull --run-cache ({PATIENCE} sets the timeout)"
            self.warn(f"DVC's remote cannot be read: {error}; {hint}")
        return False

    def _run(self, step: Step, needs: Mapping[str, Entry]) -> bool:
        key = dvcfile.run_key(dvcfile.command(step), needs, step.outputs)
        self._ask({"folder": dvcfile.run_folder(key)})
        recorded = self.store.record(step.name)
        # Pushed without its run-cache entry: git has the record.
        same = recorded and all(recorded.dependencies.get(path) == entry for path, entry in needs.items())
        for run in (*self.store.runs(key), recorded if same else None):
            if run is None or set(run.outputs) != set(step.outputs):
                continue
            # Files that git tracks are in no remote: the statement contains them.
            entries = [run.outputs[path] for path in (step.artifact, step.provenance)]
            if self._ask({"objects": [entry.md5 for entry in entries]}):
                self._ask({"folder": folder_of(step.name, run.outputs[step.provenance].md5)})
                return True
        return False

    def _ask(self, request: dict[str, Any]) -> bool:
        """Whether the remote has everything that is requested."""
        process = self._process = self._process or self._started()
        assert process.stdin and process.stdout
        try:
            process.stdin.write(json.dumps(request).encode() + b"\n")
            process.stdin.flush()
        except BrokenPipeError:
            raise _Silent("the process that asks it has ended") from None
        for answer in self._answers(process.stdout.fileno()):
            if "error" in answer:
                raise _Silent(answer["error"])
            if "whole" in answer:
                return bool(answer["whole"])
        raise _Silent("the process that asks it has ended")

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
                raise _Silent(f"no answer for {limit:g} s")
            data = os.read(pipe, 65536)
            if not data:
                return
            self._unread += data

    def _started(self) -> "subprocess.Popen[bytes]":
        environment = os.environ | {PARENT: named(), "DVC_NO_ANALYTICS": "1"}
        command = ours("engine.dvc.remote", str(self.root))
        return subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)

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


class _Silent(Exception):
    """The remote cannot be read; the text says why."""


def pull_all(project: Project, graph: Graph, puller: Puller) -> int:
    """Pull results for every step of GRAPH that would run and whose inputs are known; returns the number of steps that can be restored."""
    planner = Planner(graph, puller.store, project.identities)
    count = 0
    for step in graph:
        if puller.bring(step, planner, planner.decide(step).action):
            count += planner.decide(step).action is Action.RESTORE
    return count


def main(root: Path) -> int:
    """Answer requests from stdin until it ends."""
    # A request may block forever.
    die_with_parent(signal.SIGKILL)
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    # Keep what libraries print out of the answers.
    os.dup2(2, 1)
    signs = _Signs(answers)
    asking: _Asking | None = None
    for line in sys.stdin:
        try:
            asking = asking or _Asking(root, signs)
            answer: dict[str, Any] = {"whole": asking.answer(json.loads(line))}
        except Exception as error:
            # File systems of remotes raise arbitrary exceptions.
            said = error.problems[0].what if isinstance(error, UserError) else " ".join(str(error).split())
            answer = {"error": said or type(error).__name__}
        signs.say(answer)
    return 0


@dataclass
class _Signs:
    """Sends answers, and signs of progress between them."""

    stream: Any
    _last: float = 0.0

    def say(self, answer: dict[str, Any]) -> None:
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
        self._runs = repo.cloud.get_remote_odb(None, "build --pull", hash_name="md5-dos2unix")
        self._objects = repo.cloud.get_remote_odb(None, "build --pull", hash_name="md5")
        self._cache = cache_settings(root)
        self._signs = signs
        fs = self._runs.fs
        if {"http", "https"} & {fs.protocol}:
            # HTTP has no listings, and its file system cannot tell an unreachable server from an empty one.
            raise UserError("remotes over HTTP have no run cache")
        if fs.protocol == "local" and not Path(self._runs.path).is_dir():
            raise UserError(f"folder not found: {self._runs.path}")

    def answer(self, request: dict[str, Any]) -> bool:
        """Whether the remote has everything that is requested, which is then in the cache."""
        if "folder" in request:
            return self._folder(request["folder"])
        # Request all of them: the next request, or another build, finds what has arrived.
        return not [md5 for md5 in request["objects"] if not self._object(md5)]

    def _folder(self, inside: str) -> bool:
        """The entries of one folder of the run cache."""
        fs = self._runs.fs
        source = fs.join(self._runs.path, *inside.split("/"))
        try:
            paths = list(fs.find(source)) if fs.exists(source) else []
        except FileNotFoundError:
            return False
        for path in paths:
            self._copy(fs, path, self._cache.folder / inside / fs.name(path), self._cache.file_mode, None)
        return bool(paths)

    def _object(self, md5: str) -> bool:
        target = self._cache.folder / dvcfile.object_path(md5)
        whole = target.exists() and file_md5(target) == md5.removesuffix(".dir")
        if not whole:
            target.unlink(missing_ok=True)
            try:
                self._copy(self._objects.fs, self._objects.oid_to_path(md5), target, dvcfile.OBJECT_MODE, md5.removesuffix(".dir"))
            except FileNotFoundError:
                return False
        if not md5.endswith(".dir"):
            return target.exists()
        if not target.exists():
            return False
        files = dict.fromkeys(dvcfile.parse_tree(target.read_bytes()).values())
        return not [file for file in files if not self._object(file)]

    def _copy(self, fs: Any, source: str, target: Path, mode: int, md5: str | None) -> None:
        """Copy one file to a temporary name, then move it into place; a file whose content does not match its md5 is discarded."""
        from fsspec.callbacks import Callback  # type: ignore[import-untyped]

        signs = self._signs

        class Arriving(Callback):  # type: ignore[misc]
            def call(self, *_: Any, **__: Any) -> None:
                signs.arriving()

        if target.exists():
            return
        make_folder(target.parent, self._cache)
        aside = target.with_name(f".{target.name}.{os.getpid()}")
        try:
            fs.get_file(source, str(aside), callback=Arriving())
            if md5 is None or file_md5(aside) == md5:
                aside.chmod(mode)
                aside.replace(target)
        finally:
            aside.unlink(missing_ok=True)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
