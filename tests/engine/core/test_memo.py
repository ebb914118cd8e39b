"""What is remembered between runs never hides a change: the mirror of dvc.lock, digests of code, damaged files."""

import json
import os
import shutil
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.core import memo
from engine.dvc import dvcfile
from engine.dvc.disk import Disk
from engine.dvc.dvcfile import Entry, Record
from engine.dvc.hashing import Hashes
from engine.identity.code import Code
from tests.support.memory_store import lock_text

LONG_AGO = 1_600_000_000_000_000_000
DIGESTS = st.text("0123456789abcdef", min_size=32, max_size=32)
ENTRIES = st.builds(Entry, DIGESTS, st.booleans(), st.integers(0, 2**50), st.none() | st.integers(0, 9))
RECORDS = st.builds(Record, st.text(), st.dictionaries(st.text(), ENTRIES), st.dictionaries(st.text(), ENTRIES))


def lock(digit: str) -> str:
    record = Record("python -m stages toy a", {"rows": Entry(digit * 32, size=1)}, {"out": Entry("b" * 32, size=1)})
    return lock_text({"a": record}).decode()


def write(path: Path, text: str, age: int = LONG_AGO) -> None:
    path.write_text(text)
    os.utime(path, ns=(age, age))


def read_by_a(root: Path, hashes_memo: Path) -> str:
    record = Disk(root, Hashes(root, hashes_memo)).record("a")
    assert record
    return record.dependencies["rows"].md5[0]


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """A workspace whose dvc.lock is mirrored."""
    root = tmp_path / "workspace"
    root.mkdir()
    write(root / "dvc.lock", lock("1"))
    assert read_by_a(root, tmp_path / "memo.json") == "1"
    assert (tmp_path / "memo.lock").exists()
    return root


def test_the_mirror_of_the_lock_is_what_is_read(workspace: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(dvcfile, "parse_lock", lambda text: pytest.fail("the lock was parsed again"))
    assert read_by_a(workspace, workspace.parent / "memo.json") == "1"


def test_an_edit_of_the_lock_that_keeps_its_size_is_noticed(workspace: Path):
    write(workspace / "dvc.lock", lock("2"), LONG_AGO + 1)
    assert read_by_a(workspace, workspace.parent / "memo.json") == "2"


def test_an_edit_of_the_lock_that_keeps_size_and_time_is_noticed_by_the_change_time(workspace: Path):
    write(workspace / "dvc.lock", lock("3"))
    assert read_by_a(workspace, workspace.parent / "memo.json") == "3"


def test_a_lock_put_in_place_by_a_rename_is_noticed(workspace: Path):
    other = workspace / "other"
    write(other, lock("4"))
    other.replace(workspace / "dvc.lock")
    assert read_by_a(workspace, workspace.parent / "memo.json") == "4"


def test_a_lock_that_may_still_change_within_one_tick_is_not_mirrored(tmp_path: Path):
    write(tmp_path / "dvc.lock", lock("1"), time.time_ns())
    assert read_by_a(tmp_path, tmp_path / "memo.json") == "1"
    assert not (tmp_path / "memo.lock").exists()


@pytest.mark.parametrize("damage", [b"", b"{", b"0\n{}", "cut", "flipped"])
def test_a_damaged_mirror_is_ignored(workspace: Path, damage: bytes | str):
    mirror = workspace.parent / "memo.lock"
    whole = mirror.read_bytes()
    if damage == "cut":
        damage = whole[:-5]
    elif damage == "flipped":
        damage = whole.replace(b"1" * 32, b"7" * 32)
        assert damage != whole
    assert isinstance(damage, bytes)
    mirror.write_bytes(damage)
    assert read_by_a(workspace, workspace.parent / "memo.json") == "1"
    assert mirror.read_bytes() == whole


@given(RECORDS)
def test_a_packed_record_comes_back_whole(record: Record):
    again = dvcfile.unpacked(json.loads(json.dumps(dvcfile.packed(record))))
    assert again == record
    sizes = [(entry.size, entry.files) for entry in (*record.dependencies.values(), *record.outputs.values())]
    assert [(entry.size, entry.files) for entry in (*again.dependencies.values(), *again.outputs.values())] == sizes


def test_a_memo_that_cannot_be_written_or_read_costs_nothing_but_time(tmp_path: Path):
    assert memo.load(tmp_path / "missing") is None and memo.load(tmp_path) is None and memo.load(None) is None
    memo.save(None, 1)
    memo.save(tmp_path / "deep" / "memo", {"a": [1, "ü"]})
    assert memo.load(tmp_path / "deep" / "memo") == {"a": [1, "ü"]}
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["memo"]


def test_digests_of_code_are_remembered_and_every_edit_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    module = tmp_path / "stages" / "toy" / "body.py"
    module.parent.mkdir(parents=True)
    write(module, "import stages.toy.other\nx = 1\n")
    other = module.with_name("other.py")
    write(other, "y = 1\n")

    def closure() -> dict[str, str]:
        code = Code(tmp_path, tmp_path / "memo")
        found = code.closure(["stages.toy.body"])
        code.save()
        assert found == Code(tmp_path).closure(["stages.toy.body"])
        return found

    first = closure()
    assert set(first) == {"stages.toy.body", "stages.toy.other"} and closure() == first
    assert len(Code(tmp_path, tmp_path / "memo")._known) == 2
    with monkeypatch.context() as patch:
        patch.setattr("engine.identity.code.ast", None)
        assert Code(tmp_path, tmp_path / "memo").closure(["stages.toy.body"]) == first, "nothing is parsed"
        copy = tmp_path / "copy"
        shutil.copytree(tmp_path / "stages", copy / "stages")
        assert Code(copy, tmp_path / "memo").closure(["stages.toy.body"]) == first, "nor in a copy"
    write(module, "import stages.toy.other\nx = 2\n")
    assert closure()["stages.toy.body"] != first["stages.toy.body"]
    other.unlink()
    assert set(closure()) == {"stages.toy.body"}


def test_runs_are_found_by_what_they_read(tmp_path: Path):
    record = Record("c", {"rows": Entry("1" * 32), "folder": Entry("ab" * 16 + ".dir", files=1)}, {"out": Entry("e" * 32)})
    run = tmp_path / dvcfile.CACHE / dvcfile.run_folder("5" * 64) / "value"
    run.parent.mkdir(parents=True)
    run.write_text(dvcfile.run_text(record))
    store = Disk(tmp_path, Hashes(tmp_path))
    assert store.runs_with("rows", "1" * 32) and store.runs_with("folder", "ab" * 16 + ".dir")
    assert not store.runs_with("other", "1" * 32) and not store.runs_with("out", "e" * 32) and not store.runs_with("rows", "2" * 32)
