"""A worker that signs goes on from its own checkpoints only: whoever can write to the store could put weights into them."""

import subprocess
from pathlib import Path

from engine.dvc.dvcfile import Entry
from engine.dvc.remote import Remote
from engine.dvc.signatures import Signer
from engine.jobs.sealed import SealedJob
from engine.jobs.store import Store
from engine.jobs.worker import Checkpoints, StoreAddress


def test_a_worker_that_signs_goes_on_from_what_it_has_signed(tmp_path: Path):
    (tmp_path / "store").mkdir()
    (tmp_path / ".dvc/tmp").mkdir(parents=True)
    (tmp_path / ".dvc/config").write_text(StoreAddress(str(tmp_path / "store")).config())
    for name in ("ours", "theirs"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / name], check=True)
    ours, theirs = Signer(str(tmp_path / "ours")), Signer(str(tmp_path / "theirs"))
    job, other = (SealedJob("train-a", "train", "command", "", "{}", {"data": Entry(32 * digit)}, ("made",)) for digit in "ab")
    folder = tmp_path / "scratch"
    folder.mkdir()
    (folder / "step-1").write_text("state")

    with Remote(tmp_path) as remote:
        store = Store(remote, print)

        def restored(signer: Signer | None, of: SealedJob = job) -> list[str]:
            return Checkpoints(of, tmp_path / "restored", tmp_path / "aside", signer).restore(store)

        Checkpoints(job, folder, tmp_path / "aside").save(store)
        assert restored(None) == ["step-1"] and not restored(ours)
        Checkpoints(job, folder, tmp_path / "aside", ours).save(store)
        assert restored(ours) == restored(None) == ["step-1"] and not restored(theirs)
        for path in (tmp_path / "store/adapterbuild/checkpoints").rglob("*"):
            if path.is_file():
                copy = Path(str(path).replace(job.key[:2] + "/" + job.key, other.key[:2] + "/" + other.key))
                copy.parent.mkdir(parents=True, exist_ok=True)
                copy.write_bytes(path.read_bytes())
        assert restored(None, other) == ["step-1"] and not restored(ours, other)
