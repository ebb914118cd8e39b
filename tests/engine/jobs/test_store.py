"""A store that fails for a while is asked again; one that refuses is not, and says why."""

from pathlib import Path

import pytest

from engine.core.errors import UserError
from engine.dvc.remote import Remote
from engine.jobs.store import Store
from engine.jobs.worker import StoreAddress
from tests.support.s3 import Bucket


def written(tmp_path: Path, url: str, said: list[str]) -> dict[str, str]:
    """What a workspace with the store URL reads there after it has written it."""
    (tmp_path / ".dvc/tmp").mkdir(parents=True, exist_ok=True)
    (tmp_path / ".dvc/config").write_text(StoreAddress(url).config())
    with Remote(tmp_path) as remote:
        store = Store(remote, said.append)
        store.write("jobs/one", "text")
        return store.texts(["jobs/one", "jobs/two"])


def test_a_bucket_that_fails_for_a_while_costs_time_and_one_that_refuses_is_an_error_at_once(tmp_path: Path, bucket: Bucket):
    bucket.faults[:] = 2 * ["500 Internal Server Error"]
    assert written(tmp_path, f"{bucket.url}/team", said := []) == {"jobs/one": "text"}
    assert len(said) == 1 and "Internal Server Error; trying again for 600 s" in said[0]
    bucket.faults[:] = 20 * ["403 Forbidden"]
    with pytest.raises(UserError, match="the store s3://our-models/team refuses a request: Forbidden"):
        written(tmp_path, f"{bucket.url}/team", said := [])
    bucket.faults.clear()
    with pytest.raises(UserError, match="there is no bucket 'other-models'"):
        written(tmp_path, "s3://other-models/team", said)
    assert not said


def test_a_folder_that_is_away_is_no_empty_store(tmp_path: Path):
    folder = tmp_path / "store"
    folder.mkdir()
    assert written(tmp_path, str(folder), []) == {"jobs/one": "text"}
    with Remote(tmp_path) as remote:
        store = Store(remote, print, patience=0)
        assert store.texts(["jobs/one"])
        folder.rename(tmp_path / "away")
        with pytest.raises(UserError, match="the store has failed for 0 s: folder not found"):
            store.texts(["jobs/one"])
        assert not folder.exists()
