"""A workspace that demands signed runs leaves others in the remote, and says why; a remote that is slow but goes on is waited for."""

import hashlib
import shutil
import subprocess
from pathlib import Path

import pytest

from engine.dvc import dvcfile
from engine.dvc.dvcfile import Entry, Record
from engine.dvc.remote import PATIENCE, Remote, Unreadable
from engine.dvc.signatures import RUN, Signer, signature_path
from engine.jobs.worker import StoreAddress


def run_of(inputs: str, outputs: str) -> Record:
    return Record("step", {"data": Entry(32 * inputs)}, {"made": Entry(32 * outputs)})


SLOW = """
import hashlib, time

real = hashlib.md5

class Slow:
    def __init__(self, *arguments, **more):
        self.digest = real(*arguments, **more)

    def update(self, data):
        time.sleep(PAUSE if len(data) >= 2**20 else 0)
        self.digest.update(data)

    def hexdigest(self):
        return self.digest.hexdigest()

hashlib.md5 = Slow
"""
"""A Python that hashes a megabyte in PAUSE seconds."""


def slow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pause: float) -> Remote:
    """A remote whose process, which runs already, hashes slowly."""
    there, ws, site = tmp_path / "store", tmp_path / "ws", tmp_path / "site"
    for folder in (there, ws / ".dvc/tmp", site):
        folder.mkdir(parents=True)
    (site / "sitecustomize.py").write_text(SLOW.replace("PAUSE", str(pause)))
    (ws / ".dvc/config").write_text(StoreAddress(str(there)).config())
    monkeypatch.setenv("PYTHONPATH", str(site))
    remote = Remote(ws)
    assert remote.texts(["nothing"]) == {}
    monkeypatch.setenv(PATIENCE, "2")
    return remote


def kept(folder: Path, data: bytes) -> str:
    """The md5 of DATA, which becomes an object in FOLDER."""
    md5 = hashlib.md5(data, usedforsecurity=False).hexdigest()
    target = folder / dvcfile.object_path(md5)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(data)
    return md5


def test_a_file_whose_hashing_takes_longer_than_the_timeout_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with slow(tmp_path, monkeypatch, 0.4) as remote:
        md5 = kept(tmp_path / "store", bytes(8 * 2**20))
        assert remote.pull([md5])
        assert (tmp_path / "ws/.dvc/cache" / dvcfile.object_path(md5)).stat().st_size == 8 * 2**20
        # What the cache has is hashed too.
        assert remote.pull([md5])


def test_a_remote_that_does_not_go_on_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with slow(tmp_path, monkeypatch, 30.0) as remote, pytest.raises(Unreadable, match="no answer for 2 s"):
        remote.pull([kept(tmp_path / "store", bytes(2**20))])


def test_only_runs_that_an_allowed_key_has_signed_leave_the_remote(tmp_path: Path):
    there, ws = tmp_path / "store", tmp_path / "ws"
    there.mkdir()
    (ws / ".dvc/tmp").mkdir(parents=True)
    (ws / ".dvc/config").write_text(StoreAddress(str(there)).config())
    (ws / "pyproject.toml").write_text('[tool.adapterbuild.store]\nallowed_signers = "allowed"\n')
    for name in ("ours", "theirs"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / name], check=True)
    ours, theirs = Signer(str(tmp_path / "ours")), Signer(str(tmp_path / "theirs"))
    (ws / "allowed").write_text(f"alice {ours.public}\n")
    right, wrong, old = run_of("a", "b"), run_of("a", "c"), run_of("d", "e")
    path, folder = dvcfile.run_path(right), str(Path(dvcfile.run_path(right)).parent)

    with Remote(ws) as remote:

        def pulled(content: Record, name: str = path, signer: Signer | None = None, of: str = path) -> str:
            """Why CONTENT, put into the store under NAME beside a signature OF a run, was refused; empty if it was taken."""
            shutil.rmtree(there / "runs", ignore_errors=True)
            (there / name).parent.mkdir(parents=True)
            (there / name).write_text(dvcfile.run_text(content))
            if signer:
                remote.write(signature_path(name, signer.public), signer.sign(of, RUN))
            taken = remote.pull_runs(str(Path(name).parent))
            assert taken == (ws / ".dvc/cache" / name).exists() == (not remote.refused)
            return remote.refused.pop() if remote.refused else ""

        assert pulled(right) == "it is not signed"
        assert "which allowed does not allow" in pulled(right, signer=theirs)
        assert pulled(wrong, signer=ours) == "it was edited after it was signed"
        moved = f"{folder}/{Path(dvcfile.run_path(old)).name}"
        assert "by alice" in pulled(old, moved, ours, of=dvcfile.run_path(old))
        assert pulled(old, moved, ours, of=moved) == "it was edited after it was signed"
        assert not pulled(right, signer=ours)


def test_what_is_asked_ahead_is_asked_once_and_answered_as_one_by_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    there = tmp_path / "store"
    runs = [Record("step", {"data": Entry(f"{number:032}")}, {"made": Entry(32 * "b")}) for number in range(40)]
    folders = [str(Path(dvcfile.run_path(run)).parent) for run in runs]
    for run in runs[:30]:
        (there / dvcfile.run_path(run)).parent.mkdir(parents=True)
        (there / dvcfile.run_path(run)).write_text(dvcfile.run_text(run))
    md5s = [kept(there, f"object {number}".encode()) for number in range(30)] + [32 * "0"]
    (there / dvcfile.object_path(md5s[1])).write_bytes(b"damaged")
    found = []
    for ahead in (False, True):
        ws = tmp_path / str(ahead)
        (ws / ".dvc/tmp").mkdir(parents=True)
        (ws / ".dvc/config").write_text(StoreAddress(str(there)).config())
        with Remote(ws) as remote:
            if ahead:
                remote.look_ahead(runs=folders, objects=md5s, listed=md5s)
                monkeypatch.setattr(remote, "_answer", None)
            answers = [remote.pull_runs(folder) for folder in folders]
            answers += [(asks([md5]), remote.lacking) for md5 in md5s for asks in (remote.pull, remote.has)]
        found.append((answers, sorted(path.relative_to(ws) for path in (ws / ".dvc/cache").rglob("*") if path.is_file())))
    assert found[0] == found[1]
    (answers, files), _ = found
    assert answers.count(True) == 30 and len(files) == 30 + 29
    assert (False, f"{dvcfile.object_path(md5s[1])} is damaged") in answers
    assert answers[-1] == (False, f"{dvcfile.object_path(md5s[-1])} is missing")
