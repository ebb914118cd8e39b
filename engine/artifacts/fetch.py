"""Fetches an adapter by its content address from DVC's cache or remote, even if it is no longer in a spec."""

import contextlib
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from engine.artifacts.adapters import Training, trainings
from engine.artifacts.addresses import PROVENANCE, SHORTEST, only, provenance_of
from engine.artifacts.loading import Choice, Loadable, complete
from engine.core.digests import folder_digest, short
from engine.core.errors import UserError
from engine.dvc import dvcfile
from engine.dvc.disk import Disk
from engine.dvc.dvcfile import Entry
from engine.dvc.remote import Remote, Unreadable
from engine.dvc.run_records import RunRecord, folder_of
from engine.dvc.writing import remove
from engine.identity.provenance import Provenance

_LIST = "to list the known ones: engine adapters --all"


@dataclass(frozen=True)
class Fetched:
    """A trained artifact in a folder of its own."""

    provenance: Provenance
    ran: RunRecord | None
    loadable: Loadable


def fetch(
    root: Path,
    store: Disk,
    target: str,
    folder: Path,
    base: Choice = "auto",
    published: tuple[str, str] | None = None,
    prompts: Callable[[Provenance], Sequence[str]] = lambda told: (),
) -> Fetched:
    """Write the artifact of the training whose content address starts with TARGET to FOLDER, so that it loads without other files.

    BASE says how its base is included, PUBLISHED is its id and revision on the hub if it did not come from there. A model card, with the
    lines that PROMPTS has on how a training's model is asked, is in the folder; statement and run record are next to it. Raises UserError
    if the address is unknown or ambiguous, or if neither the cache nor the remote has all of the content.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} already exists", hint="give another folder: --output DIR")
    with Remote(root) as remote:
        training, provenance = _find(root, store, remote, target)
        _bring(store, remote, training)
        temporary = folder.with_name(f".{folder.name}.tmp")
        remove(temporary)
        try:
            _write(store, training, temporary)
            if (found := folder_digest(temporary)) != provenance.digest:
                what = (
                    f"{training.step} is damaged in the cache: its content address is {short(found)}, expected {short(provenance.digest)}"
                )
                raise UserError(what, hint="rebuild it, or get it from a remote: dvc fetch")
            loadable = complete(root, store, remote, provenance, temporary, folder, base, published, prompts(provenance))
            remove(folder)
            temporary.rename(folder)
        finally:
            remove(temporary)
        # The exact bytes that the run record names, also those of an earlier format.
        statement = store.read(training.provenance)
        assert statement is not None, "the content address was read from it"
        folder.with_name(folder.name + PROVENANCE).write_bytes(statement)
        ran = store.run_record(training.step, training.provenance)
        if ran is None:
            with contextlib.suppress(Unreadable):
                remote.pull_run_records(folder_of(training.step, training.provenance))
            ran = store.run_record(training.step, training.provenance)
        if ran:
            folder.with_name(folder.name + ".run.json").write_text(ran.text(), "utf-8")
        return Fetched(provenance, ran, loadable)


def _find(root: Path, store: Disk, remote: Remote, target: str) -> tuple[Training, Provenance]:
    """The training that TARGET names; if the cache has no match, provenance is pulled from the remote."""
    if len(target.removeprefix("sha256:")) < SHORTEST:
        raise UserError(f"'{target}' is too short for a content address", hint=f"give at least {SHORTEST} of its digits; {_LIST}")
    known = list(trainings(root))
    found = _by_address(known, store)
    lost = [training.provenance for training in known if not store.holds(Entry(training.provenance))]
    if (chosen := only(target, _addresses(found))) is None and lost:
        _pull(remote, lost, f"no known training has the content address {target}, and the provenance of {len(lost)} more is missing: ")
        found = _by_address(known, store)
        chosen = only(target, _addresses(found))
    if chosen is None:
        raise UserError(f"no known training has the content address {target}", hint=_LIST)
    return found[chosen]


def _by_address(known: Iterable[Training], store: Disk) -> dict[str, tuple[Training, Provenance]]:
    """The trainings by short content address; of several with the same result, the first, which is the working tree's."""
    found: dict[str, tuple[Training, Provenance]] = {}
    for training in known:
        if provenance := provenance_of(training.record, store):
            found.setdefault(short(provenance.digest), (training, provenance))
    return found


def _addresses(found: Mapping[str, tuple[Training, Provenance]]) -> dict[str, str]:
    return {name: provenance.digest for name, (_, provenance) in found.items()}


def _pull(remote: Remote, md5s: Iterable[str], context: str = "") -> None:
    """Pull content into the cache; what the remote lacks stays missing. Raises UserError, after CONTEXT, if it cannot be read."""
    try:
        remote.pull(md5s)
    except Unreadable as error:
        what = f"{context}not in DVC's cache, and its remote cannot be read: {str(error).partition('. ')[0]}"
        raise UserError(what, hint="run: dvc remote add --default NAME URL") from None


def _bring(store: Disk, remote: Remote, training: Training) -> None:
    """Ensure that the cache holds the artifact; raises UserError if it cannot be pulled."""
    if store.holds(training.artifact):
        return
    _pull(remote, [training.artifact.md5])
    if not store.holds(training.artifact):
        what = f"neither DVC's cache nor its remote has all files of {training.step}"
        raise UserError(what, hint="set a remote that has them: dvc remote default NAME")


def _write(store: Disk, training: Training, folder: Path) -> None:
    for name, md5 in (store.tree(training.artifact.md5) or {}).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        # A copy: cache files must not be written to.
        shutil.copyfile(store.cache / dvcfile.object_path(md5), path)
