"""A workspace that demands signed runs leaves others in the remote, and says why."""

import shutil
import subprocess
from pathlib import Path

from engine.dvc import dvcfile
from engine.dvc.dvcfile import Entry, Record
from engine.dvc.remote import Remote
from engine.dvc.signatures import RUN, Signer, signature_path
from engine.jobs.worker import StoreAddress


def run_of(inputs: str, outputs: str) -> Record:
    return Record("step", {"data": Entry(32 * inputs)}, {"made": Entry(32 * outputs)})


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
