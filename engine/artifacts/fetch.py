"""Fetches an adapter by its content address from DVC's cache or remote, even if it is no longer in a spec."""

import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

from engine.dvc import dvcfile
from engine.artifacts.adapters import Training, trainings
from engine.artifacts.addresses import PROVENANCE, SHORTEST, only, provenance_of
from engine.core.digests import folder_digest, short
from engine.dvc.config import cache_settings
from engine.core.errors import UserError
from engine.identity.provenance import Provenance
from engine.dvc.writing import make_folder, remove
from engine.dvc.records import RunRecord, folder_of
from engine.dvc.store import Disk

_LIST = "to list the known ones: engine adapters --all"


def fetch(root: Path, store: Disk, target: str, folder: Path) -> tuple[Provenance, RunRecord | None]:
    """Write the artifact of the training whose content address starts with TARGET to FOLDER, and its statement and run record next to it.

    Returns both. Raises UserError if the address is unknown or ambiguous, or if neither the cache nor the remote has all of the content.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} already exists", hint="give another folder: --output DIR")
    training, provenance = _find(root, store, target)
    _bring(root, store, training)
    temporary = folder.with_name(f".{folder.name}.tmp")
    remove(temporary)
    try:
        _write(store, training, temporary)
        if (found := folder_digest(temporary)) != provenance.digest:
            what = f"{training.step} is damaged in the cache: its content address is {short(found)}, expected {short(provenance.digest)}"
            raise UserError(what, hint="rebuild it, or get it from a remote: dvc fetch")
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
        pull_records(root, store, training)
        ran = store.run_record(training.step, training.provenance)
    if ran:
        folder.with_name(folder.name + ".run.json").write_text(ran.text(), "utf-8")
    return provenance, ran


def _find(root: Path, store: Disk, target: str) -> tuple[Training, Provenance]:
    """The training that TARGET names; if the cache has no match, provenance is pulled from the remote."""
    if len(target.removeprefix("sha256:")) < SHORTEST:
        raise UserError(f"'{target}' is too short for a content address", hint=f"give at least {SHORTEST} of its digits; {_LIST}")
    known = list(trainings(root))
    found = _by_address(known, store)
    lost = [training.provenance for training in known if not store.holds(training.record.outputs[_beside(training)])]
    if (chosen := only(target, _addresses(found))) is None and lost:
        try:
            pull(root, lost)
        except UserError as error:
            what = f"no known training has the content address {target}, and the provenance of {len(lost)} more is missing"
            raise UserError(f"{what}: {error.problems[0].what}", hint=error.problems[0].hint) from None
        found = _by_address(known, store)
        chosen = only(target, _addresses(found))
    if chosen is None:
        raise UserError(f"no known training has the content address {target}", hint=_LIST)
    return found[chosen]


def _by_address(known: Iterable[Training], store: Disk) -> dict[str, tuple[Training, Provenance]]:
    """The trainings by short content address; of several runs with the same result, the last."""
    found = [(training, provenance_of(training.record, store)) for training in known]
    return {short(provenance.digest): (training, provenance) for training, provenance in found if provenance}


def _addresses(found: Mapping[str, tuple[Training, Provenance]]) -> dict[str, str]:
    return {name: provenance.digest for name, (_, provenance) in found.items()}


def _beside(training: Training) -> str:
    return next(path for path, entry in training.record.outputs.items() if entry.md5 == training.provenance)


def _bring(root: Path, store: Disk, training: Training) -> None:
    """Ensure that the cache holds the artifact; raises UserError if it cannot be pulled."""
    if store.holds(training.artifact):
        return
    if store.read(training.artifact.md5) is None:
        pull(root, [training.artifact.md5])
    files = store.tree(training.artifact.md5) or {}
    pull(root, [md5 for md5 in files.values() if not (store.cache / dvcfile.object_path(md5)).exists()])
    if not store.holds(training.artifact):
        what = f"neither DVC's cache nor its remote has all files of {training.step}"
        raise UserError(what, hint="set a remote that has them: dvc remote default NAME")


def _write(store: Disk, training: Training, folder: Path) -> None:
    for name, md5 in (store.tree(training.artifact.md5) or {}).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        # A copy: cache files must not be written to.
        shutil.copyfile(store.cache / dvcfile.object_path(md5), path)


def pull(root: Path, md5s: Iterable[str]) -> None:
    """Pull content from DVC's remote into its cache; what the remote lacks stays missing.

    `dvc fetch` handles only content that the working tree names. Raises UserError if there is no remote or it cannot be reached.
    """
    from dvc.exceptions import DvcException
    from dvc.repo import Repo
    from dvc_data.hashfile.hash_info import HashInfo

    wanted = [HashInfo("md5", md5) for md5 in md5s]
    if not wanted:
        return
    try:
        with Repo(str(root)) as repo:
            repo.cloud.pull(wanted)
    except DvcException as error:
        first = str(error).splitlines()[0].partition(". ")[0]
        raise UserError(f"not in DVC's cache, and its remote cannot be read: {first}", hint="run: dvc remote add --default NAME URL") from None
    except FileNotFoundError:
        return  # the remote lacks the listing of a folder; the caller checks what has arrived


def pull_records(root: Path, store: Disk, training: Training) -> None:
    """Pull the run records of a training from the run cache of DVC's remote, if there is one; the artifact is valid without them."""
    from dvc.config import RemoteConfigError
    from dvc.exceptions import DvcException
    from dvc.repo import Repo
    from dvc.stage.cache import RunCacheNotSupported

    inside = folder_of(training.step, training.provenance)
    target = store.cache / inside
    try:
        with Repo(str(root)) as repo:
            remote = repo.cloud.get_remote_odb(None, "fetch --run-cache", hash_name="md5-dos2unix")
            source = remote.fs.join(remote.path, *inside.split("/"))
            for path in remote.fs.find(source) if remote.fs.exists(source) else ():
                make_folder(target, cache_settings(root))
                remote.fs.get_file(path, str(target / remote.fs.name(path)))
    except (DvcException, RemoteConfigError, RunCacheNotSupported, OSError):
        return
