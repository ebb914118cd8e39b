"""An adapter by its content address, out of DVC's cache or its remote, even when no spec asks for it any more."""

import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from engine.dvc import dvcfile
from engine.artifacts.adapters import Training, trainings
from engine.artifacts.addresses import PROVENANCE, SHORTEST, only, provenance_of
from engine.core.digests import folder_digest, short
from engine.core.errors import UserError
from engine.identity.provenance import Provenance
from engine.dvc.writing import remove
from engine.dvc.records import RunRecord
from engine.dvc.store import Disk
from engine.artifacts.loading import Choice, Loadable, complete
from engine.artifacts.remote import pull, pull_records

_LIST = "this lists all that are known: engine adapters --all"


@dataclass(frozen=True)
class Fetched:
    """A trained artifact in a folder of its own."""

    told: Provenance
    ran: RunRecord | None
    loadable: Loadable


def fetch(root: Path, store: Disk, target: str, folder: Path, base: Choice = "auto") -> Fetched:
    """Write the trained artifact whose content address begins with TARGET to FOLDER, so that it loads by itself.

    Its base is there as BASE says, with a model card; statement and run record lie beside it. Raises UserError for an address that is
    unknown or ambiguous, and for content that neither the cache nor the remote has whole.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} is there already", hint="name another folder: --output DIR")
    training, told = _find(root, store, target)
    _bring(root, store, training)
    temporary = folder.with_name(f".{folder.name}.tmp")
    remove(temporary)
    try:
        _write(store, training, temporary)
        if (found := folder_digest(temporary)) != told.digest:
            what = f"the cache's content of {training.step} is damaged: it has the address {short(found)}, not {short(told.digest)}"
            raise UserError(what, hint="build it again, or pull it from a remote: dvc fetch")
        loadable = complete(root, store, told, temporary, folder, base)
        remove(folder)
        temporary.rename(folder)
    finally:
        remove(temporary)
    # The bytes that the run record names, also those of an earlier format.
    statement = store.read(training.provenance)
    assert statement is not None, "the content address was read from it"
    folder.with_name(folder.name + PROVENANCE).write_bytes(statement)
    ran = store.run_record(training.step, training.provenance)
    if ran is None:
        pull_records(root, store, training)
        ran = store.run_record(training.step, training.provenance)
    if ran:
        folder.with_name(folder.name + ".run.json").write_text(ran.text(), "utf-8")
    return Fetched(told, ran, loadable)


def _find(root: Path, store: Disk, target: str) -> tuple[Training, Provenance]:
    """The training that TARGET names; the remote is asked for what is told of trainings where the cache alone does not know it."""
    if len(target.removeprefix("sha256:")) < SHORTEST:
        raise UserError(f"'{target}' is too short for a content address", hint=f"give at least {SHORTEST} of its digits; {_LIST}")
    known = list(trainings(root))
    told = _told(known, store)
    lost = [training.provenance for training in known if not store.holds(training.record.outputs[_beside(training)])]
    if (chosen := only(target, _addresses(told))) is None and lost:
        try:
            pull(root, lost)
        except UserError as error:
            what = f"no training with the content address {target} is known here; of {len(lost)} on record the provenance is"
            raise UserError(f"{what} {error.problems[0].what}", hint=error.problems[0].hint) from None
        told = _told(known, store)
        chosen = only(target, _addresses(told))
    if chosen is None:
        raise UserError(f"no training with the content address {target} is known here", hint=_LIST)
    return told[chosen]


def _told(known: Iterable[Training], store: Disk) -> dict[str, tuple[Training, Provenance]]:
    """The trainings by the short form of their content address; of several with one result the first, which is the working tree's."""
    found: dict[str, tuple[Training, Provenance]] = {}
    for training in known:
        if provenance := provenance_of(training.record, store):
            found.setdefault(short(provenance.digest), (training, provenance))
    return found


def _addresses(told: Mapping[str, tuple[Training, Provenance]]) -> dict[str, str]:
    return {name: provenance.digest for name, (_, provenance) in told.items()}


def _beside(training: Training) -> str:
    return next(path for path, entry in training.record.outputs.items() if entry.md5 == training.provenance)


def _bring(root: Path, store: Disk, training: Training) -> None:
    """See to it that the cache holds the artifact."""
    if store.holds(training.artifact):
        return
    if store.read(training.artifact.md5) is None:
        pull(root, [training.artifact.md5])
    files = store.tree(training.artifact.md5) or {}
    pull(root, [md5 for md5 in files.values() if not (store.cache / dvcfile.object_path(md5)).exists()])
    if not store.holds(training.artifact):
        what = f"neither DVC's cache nor its remote has all files of {training.step} any more"
        raise UserError(what, hint="name a remote that has them: dvc remote default NAME")


def _write(store: Disk, training: Training, folder: Path) -> None:
    for name, md5 in (store.tree(training.artifact.md5) or {}).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        # A copy: the cache's own files are not to be written to.
        shutil.copyfile(store.cache / dvcfile.object_path(md5), path)
