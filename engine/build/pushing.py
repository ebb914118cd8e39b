"""Sends what is built to DVC's remote, step by step: content first, then the record of the run, by which others find it."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath

from engine.core.errors import UserError
from engine.core.graph import Step
from engine.dvc import dvcfile
from engine.dvc.disk import Disk
from engine.dvc.remote import PATIENCE, Remote, Unreadable
from engine.dvc.run_records import folder_of
from engine.dvc.signatures import RUN, Signer, signature_path


@dataclass(frozen=True)
class Pushed:
    """What a push has done."""

    steps: int
    """Steps whose results the remote has now."""
    sent: int
    """Bytes of content that it lacked."""
    unbuilt: tuple[str, ...]
    """Steps that have no result here."""


def push(steps: Iterable[Step], store: Disk, remote: Remote, signer: Signer | None, told: Callable[[str, int], None]) -> Pushed:
    """Send the recorded results of STEPS, signed by SIGNER if there is one; TOLD gets each step's name and the bytes sent for it.

    Raises UserError if the remote cannot be written; what was sent until then is complete, step by step.
    """
    sent, unbuilt, count = 0, [], 0
    for step in steps:
        record = store.record(step.name)
        outputs = [record.outputs.get(path) for path in (step.artifact, step.provenance)] if record else [None]
        if not record or not all(entry and store.holds_intact(entry) for entry in outputs):
            unbuilt.append(step.name)
            continue
        try:
            size = remote.push(entry.md5 for entry in outputs if entry)
            remote.push_runs(folder_of(step.name, record.outputs[step.provenance].md5))
            run = dvcfile.run_path(record)
            if signer:
                # First: a run without a signature counts for nobody.
                remote.write(signature_path(run, signer.public), signer.sign(run, RUN))
            remote.push_runs(str(PurePosixPath(run).parent))
        except Unreadable as error:
            what = f"DVC's remote cannot be written: {error}"
            hint = f"{count} steps were pushed; run the same command again ({PATIENCE} sets the timeout)"
            raise UserError(what, hint=hint) from None
        told(step.name, size)
        sent, count = sent + size, count + 1
    return Pushed(count, sent, tuple(unbuilt))
