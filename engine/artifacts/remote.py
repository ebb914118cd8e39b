"""Pulls content and run records that the cache lacks from DVC's remote, through DVC."""

from collections.abc import Iterable
from pathlib import Path

from engine.artifacts.adapters import Training
from engine.core.errors import UserError
from engine.dvc.config import cache_settings
from engine.dvc.disk import Disk
from engine.dvc.run_records import folder_of
from engine.dvc.writing import make_folder


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
        raise UserError(
            f"not in DVC's cache, and its remote cannot be read: {first}", hint="run: dvc remote add --default NAME URL"
        ) from None
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
