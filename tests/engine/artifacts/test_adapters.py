"""Adapters that no spec asks for any more: listed from git's history, and fetched from cache or remote by their content address."""

import shutil
import socket
import subprocess
from pathlib import Path

import pytest

from engine.artifacts.adapters import Adapter, Choice, past, rows, trainings
from engine.artifacts.fetch import fetch
from engine.core.digests import folder_digest, listing_digest
from engine.core.errors import UserError
from engine.dvc import dvcfile
from engine.dvc.config import cache_settings
from engine.dvc.disk import Disk
from engine.dvc.dvcfile import Entry, Record
from engine.dvc.hashing import Hashes
from engine.dvc.run_records import RunRecord, keep
from engine.identity.provenance import Provenance, parse
from tests.support.memory_store import lock_text

EARLY, LATE = {"adapter_config.json": b"{}", "adapter_model.safetensors": b"early"}, {"adapter_model.safetensors": b"late"}


class Place:
    """A workspace with git, a cache of DVC's form, and a folder that DVC knows as its remote."""

    def __init__(self, root: Path, remote: Path) -> None:
        self.root, self.remote = root, remote
        (root / ".dvc").mkdir(parents=True)
        self.git("init", "--quiet")

    def git(self, *command: str) -> None:
        identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
        subprocess.run(["git", *identity, *command], cwd=self.root, check=True, capture_output=True)

    def put(self, data: bytes, suffix: str = "") -> str:
        md5 = dvcfile.text_md5(data.decode())
        path = self.root / dvcfile.CACHE / dvcfile.object_path(md5 + suffix)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return md5 + suffix

    def build(self, name: str, files: dict[str, bytes], finished: str, method: str = "lora") -> str:
        """Record a training that has left FILES, commit it, and tell its content address."""
        folder = self.root / "scratch"
        folder.mkdir()
        for path, data in files.items():
            (folder / path).write_bytes(data)
        digest = folder_digest(folder)
        shutil.rmtree(folder)
        tree = self.put(dvcfile.tree_bytes({path: self.put(data) for path, data in files.items()}), ".dir")
        base = {"model": {"path": "artifacts/initialize-tiny", "md5": "0" * 32 + ".dir"}}
        recipe, spec = {"method": {"kind": method}}, f"specs/{name}.toml:3:1"
        told = Provenance(f"train-{name}", "train", digest, {}, "sha256:1", recipe, base).text()
        ran = RunRecord(f"train-{name}", dvcfile.text_md5(told), finished=finished, spec=spec)
        keep(cache_settings(self.root), ran)
        outputs = {
            f"artifacts/train-{name}": Entry(tree, files=len(files)),
            f"artifacts/train-{name}.provenance.json": Entry(self.put(told.encode())),
        }
        (self.root / "dvc.lock").write_bytes(lock_text({f"train-{name}": Record("x", {}, outputs)}))
        self.git("add", "dvc.lock")
        self.git("commit", "--quiet", "--message", name)
        return digest

    def store(self) -> Disk:
        return Disk(self.root, Hashes(self.root))

    def lose(self) -> None:
        """Empty the cache; what it held is in the remote."""
        shutil.move(self.root / dvcfile.CACHE / "files", self.remote / "files")
        (self.root / ".dvc/config").write_text(f"[core]\n    remote = far\n['remote \"far\"']\n    url = {self.remote}\n")


@pytest.fixture
def place(tmp_path: Path) -> Place:
    (tmp_path / "remote").mkdir()
    return Place(tmp_path / "workspace", tmp_path / "remote")


def held(folder: Path) -> dict[str, bytes]:
    """The files of a fetched adapter but for its card."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "README.md"}


def test_history_knows_what_no_spec_asks_for(place: Place):
    early, late = place.build("toy", EARLY, "2026-01-01"), place.build("toy", LATE, "2026-01-02", "ia3")
    place.build("whole", {"model.safetensors": b"all"}, "2026-01-03", "full")
    found = past(place.root, place.store(), [])
    assert [(one.digest, one.step, one.method, one.base, one.spec) for one in found] == [
        (late, "train-toy", "ia3", "initialize-tiny", "specs/toy.toml"),
        (early, "train-toy", "lora", "initialize-tiny", "specs/toy.toml"),
    ]
    assert all(one.in_cache and not one.current and one.state == "past" for one in found)
    assert [one.digest for one in past(place.root, place.store(), [late])] == [early]
    assert [one.method for one in found if one in Choice(method="l*")] == ["lora"]
    assert not [one for one in found if one in Choice(step="train-other")]
    assert [one.digest for one in found if one in Choice(base="*tiny", digest=late[7:13])] == [late]
    columns, table = rows(found, "exact_match")
    assert len(columns) == len(table[0]) and table[1][0] == early[7:19]


def test_a_lock_with_conflict_marks_hides_no_other(place: Place):
    early = place.build("toy", EARLY, "2026-01-01")
    text = (place.root / "dvc.lock").read_bytes()
    (place.root / "dvc.lock").write_bytes(b"<<<<<<< ours\n" + text + b"=======\n")
    assert [one.digest for one in past(place.root, place.store(), [])] == [early] and len(list(trainings(place.root))) == 1


def test_an_adapter_comes_from_the_cache_with_its_provenance(place: Place, tmp_path: Path):
    early = place.build("toy", EARLY, "2026-01-01")
    place.build("toy", LATE, "2026-01-02")
    fetched = fetch(place.root, place.store(), early[7:15], tmp_path / "out")
    told, ran = fetched.provenance, fetched.ran
    assert held(tmp_path / "out") == EARLY and early in (tmp_path / "out/README.md").read_text()
    assert fetched.loadable.lacking and "initialize-tiny" in fetched.loadable.lacking
    beside = parse((tmp_path / "out.provenance.json").read_bytes())
    assert beside == told and told.digest == early
    assert ran and ran.finished == "2026-01-01" and (tmp_path / "out.run.json").read_text() == ran.text()
    with pytest.raises(UserError, match="already exists"):
        fetch(place.root, place.store(), early, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "out.provenance.json", "out.run.json", "remote", "workspace"]


def test_what_the_cache_has_lost_comes_from_the_remote(place: Place, tmp_path: Path):
    early = place.build("toy", EARLY, "2026-01-01")
    place.build("toy", LATE, "2026-01-02")
    place.lose()
    shutil.move(place.root / dvcfile.CACHE / "runs", place.remote / "runs")
    fetched = fetch(place.root, place.store(), early, tmp_path / "out")
    assert fetched.provenance.digest == early and fetched.ran and fetched.ran.spec == "specs/toy.toml:3:1"
    assert held(tmp_path / "out") == EARLY


def test_what_nobody_has_whole_is_refused_and_leaves_nothing(place: Place, tmp_path: Path):
    early = place.build("toy", EARLY, "2026-01-01")
    (place.root / dvcfile.CACHE / dvcfile.object_path(dvcfile.text_md5("early"))).unlink()
    with pytest.raises(UserError, match="its remote cannot be read") as caught:
        fetch(place.root, place.store(), early, tmp_path / "out")
    assert "dvc remote add" in caught.value.problems[0].hint
    place.lose()
    shutil.rmtree(place.remote / "files/md5" / dvcfile.text_md5("early")[:2], ignore_errors=True)
    with pytest.raises(UserError, match="neither DVC's cache nor its remote"):
        fetch(place.root, place.store(), early, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_remote_that_does_not_answer_is_given_up(place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    early = place.build("toy", EARLY, "2026-01-01")
    shutil.rmtree(place.root / dvcfile.CACHE / "files/md5" / dvcfile.text_md5("early")[:2])
    monkeypatch.setenv("ADAPTERBUILD_REMOTE_TIMEOUT", "1")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        (place.root / ".dvc/config").write_text(f"[core]\n    remote = far\n['remote \"far\"']\n    url = {url}\n")
        with pytest.raises(UserError, match="its remote cannot be read: no answer for 1 s"):
            fetch(place.root, place.store(), early, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_damaged_object_is_no_adapter(place: Place, tmp_path: Path):
    early = place.build("toy", EARLY, "2026-01-01")
    (place.root / dvcfile.CACHE / dvcfile.object_path(dvcfile.text_md5("early"))).write_bytes(b"EARLY")
    with pytest.raises(UserError, match="is damaged"):
        fetch(place.root, place.store(), early, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith((".", "out"))] == []


def test_an_address_that_only_a_remote_could_know_says_so(place: Place, tmp_path: Path):
    early = place.build("toy", EARLY, "2026-01-01")
    shutil.rmtree(place.root / dvcfile.CACHE)
    with pytest.raises(UserError, match=r"provenance of 1 more is missing: not in DVC's cache, .* read: .*no remote"):
        fetch(place.root, place.store(), early, tmp_path / "out")


@pytest.mark.parametrize("target", ["fedcba98", "12", "", "train-toy"])
def test_what_is_no_known_address_is_refused(place: Place, tmp_path: Path, target: str):
    place.build("toy", EARLY, "2026-01-01")
    with pytest.raises(UserError, match=r"no known training has the content address|too short for a content address") as caught:
        fetch(place.root, place.store(), target, tmp_path / "out")
    assert "engine adapters --all" in caught.value.problems[0].hint


@pytest.mark.parametrize("asked", [{"digest": ""}, {"digest": "sha256:"}, {"digest": "train-x"}, {"step": ""}, {"base": ""}])
def test_a_choice_that_says_nothing_is_refused(asked: dict[str, str]):
    with pytest.raises(UserError, match=r"is not the start of a content address|must not be empty") as caught:
        Choice(**asked)
    assert caught.value.problems[0].hint


def test_a_state_in_a_word():
    one = Adapter(None, "e", "s", "t", "lora", "b", False, {}, False)
    assert one.state == "–" and one not in Choice(digest="123456")
    assert listing_digest({}) and Adapter("sha256:1", "e", "s", "t", "lora", "b", True, {}, True).state == "current"
