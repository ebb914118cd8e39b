"""What differs between two states, and what git gives of them: files of a commit, every version of DVC's files."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from engine.artifacts.history import LOST, State, compare, differences_between, read_state, state_at
from engine.core.errors import UserError
from engine.dvc import git
from engine.dvc.dvcfile import Entry, Record
from tests.support.memory_store import MemoryStore, lock_text, statement

Git = Callable[..., str]


def lock(**artifacts: tuple[str, str]) -> bytes:
    """A `dvc.lock` of trainings: name to the md5 of artifact and provenance."""
    records = {
        f"train-{name}": Record(
            f"python -m stages train train-{name}",
            {},
            {f"artifacts/train-{name}": Entry(artifact), f"artifacts/train-{name}.provenance.json": Entry(provenance)},
        )
        for name, (artifact, provenance) in artifacts.items()
    }
    return lock_text(records)


def files(rank: int = 8, exact_match: float = 0.5, **artifacts: tuple[str, str]) -> dict[str, bytes]:
    return {
        "params.yaml": f"train-one:\n  method: {{kind: lora, r: {rank}}}\n  steps: 2\nsplit-a:\n  test: 0.1\n".encode(),
        "dvc.lock": lock(**(artifacts or {"one": ("1" * 32 + ".dir", "2" * 32)})),
        "metrics/train-one.json": json.dumps({"a": {"exact_match": exact_match}, "rows": 3}).encode(),
    }


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


def provenance(store: MemoryStore, digest: str) -> str:
    return store.put(statement(digest)).md5


def test_a_state_does_not_differ_from_itself(store: MemoryStore):
    changes = compare(read_state("old", files()), read_state("new", files()), store)
    assert not changes and list(changes.tables()) == []
    assert next(changes.lines()) == ("old → new", "no differences")


def test_recipes_artifacts_adapters_and_metrics_are_named_with_old_and_new(store: MemoryStore):
    old = read_state("old", files(one=("1" * 32 + ".dir", provenance(store, "sha256:aaaa"))))
    new = read_state("new", files(16, 0.75, one=("3" * 32 + ".dir", provenance(store, "sha256:bbbb"))))
    changes = compare(old, new, store)
    assert [(c.step, c.subject, c.old, c.new) for c in changes.recipes] == [("train-one", "method.r", 8, 16)]
    assert [(c.step, c.old, c.new) for c in changes.artifacts] == [("train-one", "1" * 32 + ".dir", "3" * 32 + ".dir")]
    assert [(c.step, c.old, c.new) for c in changes.adapters] == [("train-one", "sha256:aaaa", "sha256:bbbb")]
    (metric,) = changes.metrics
    assert (metric.subject, metric.old, metric.new, metric.difference, metric.shown_difference) == (
        "a.exact_match",
        0.5,
        0.75,
        0.25,
        "+0.25",
    )
    assert ("recipe    train-one  method.r  8 → 16", "") in changes.lines()
    assert [title for title, *_ in changes.tables()] == ["adapters and models", "metrics"]
    data = json.loads(json.dumps(changes.as_data()))
    assert data["metrics"][0]["difference"] == 0.25 and data["steps"] == {"added": [], "removed": []}


def test_provenance_that_the_cache_has_lost_is_said_so(store: MemoryStore):
    old = read_state("old", files())
    new = read_state("new", files(one=("3" * 32 + ".dir", provenance(store, "sha256:bbbb"))))
    assert [(c.old, c.new) for c in compare(old, new, store).adapters] == [(LOST, "sha256:bbbb")]
    both_lost = compare(old, read_state("new", files(one=("3" * 32 + ".dir", "4" * 32))), store)
    assert [(c.old, c.new) for c in both_lost.adapters] == [(LOST, LOST)]


def test_a_retrained_adapter_with_the_same_content_is_no_difference(store: MemoryStore):
    new = files(one=("1" * 32 + ".dir", "9" * 32))
    assert not compare(read_state("old", files()), read_state("new", new), store)


def test_steps_that_come_and_go_and_what_a_lock_remembers_for_ever(store: MemoryStore):
    old = files()
    new = files() | {"params.yaml": b"split-a: {test: 0.1}\nmix-one: {}\n"}
    changes = compare(read_state("old", old), read_state("new", new), store)
    assert (changes.added, changes.removed, changes.recipes) == (("mix-one",), ("train-one",), ())
    # The lock and the metrics still name train-one in both, but only the old revision has the step.
    assert [(c.old, c.new) for c in changes.artifacts] == [("1" * 32 + ".dir", None)]
    assert {(c.subject, c.old, c.new) for c in changes.metrics} == {("a.exact_match", 0.5, None), ("rows", 3, None)}


def test_types_count_and_words_have_no_difference(store: MemoryStore):
    old, new = (read_state("x", {"params.yaml": b"a: {x: 1, y: one}\n"} | m) for m in ({}, {"params.yaml": b"a: {x: true, y: two}\n"}))
    changes = compare(old, new, store)
    assert [(c.subject, c.old, c.new, c.difference) for c in changes.recipes] == [("x", 1, True, None), ("y", "one", "two", None)]


def test_missing_files_are_named_and_a_lock_alone_still_gives_steps(store: MemoryStore):
    empty, locked = read_state("old", {}), read_state("new", {"dvc.lock": lock(one=("1" * 32, "2" * 32))})
    changes = compare(empty, locked, store)
    assert changes.added == ("train-one",)
    assert ("missing in old: params.yaml, dvc.lock", "") in changes.lines() and ("missing in new: params.yaml", "") in changes.lines()


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("params.yaml", b"a: [1"),
        ("dvc.lock", b"stages: 3"),
        ("metrics/x.json", b"{"),
        ("metrics/x.json", b'{"a": NaN}'),
        ("params.yaml", b"[]\n- 1"),
    ],
)
def test_what_cannot_be_read_is_a_located_error(name, data):
    with pytest.raises(UserError) as caught:
        read_state("v1", files() | {name: data})
    assert f"{name} of v1" in str(caught.value)


@pytest.fixture
def repository(tmp_path: Path) -> Git:
    """A workspace in a folder of a git repository; gives `git`, run in it."""
    root = tmp_path / "ws"
    root.mkdir()

    def run(*command: str) -> str:
        identity = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "protocol.file.allow=always"]
        return subprocess.run(["git", *identity, *command], cwd=root, capture_output=True, text=True, check=True).stdout.strip()

    subprocess.run(["git", "init", "--quiet", "--initial-branch", "main"], cwd=tmp_path, check=True)
    return run


def commit(repository: Git, root: Path, text: str, name: str = "dvc.lock") -> None:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(text)
    repository("add", "--all")
    repository("commit", "--quiet", "--message", text)


def versions(root: Path, history: bool) -> set[str]:
    return {data.decode() for _, data in git.contents(root, git.dvc_files(root, history))}


def test_states_are_read_from_commits_of_a_workspace_below_the_top(repository: Git, tmp_path: Path):
    root = tmp_path / "ws"
    commit(repository, root, "nothing yet", "note")
    for name, data in files().items():
        commit(repository, root, data.decode(), name)
    repository("tag", "--annotate", "v1", "--message", "v1")
    commit(repository, root, "train-one: {steps: 3}\n", "params.yaml")
    assert state_at(root, "v1").recipes["split-a"] == {"test": 0.1}
    assert state_at(root, "HEAD").recipes == {"train-one": {"steps": 3}}
    assert state_at(root, "HEAD~4").missing == ("params.yaml", "dvc.lock")
    assert state_at(root, "v1").metrics["train-one"]["rows"] == 3


@pytest.mark.parametrize("revision", ["v2", "", "--all", "HEAD:ws", "a b", "HEAD..HEAD"])
def test_an_unknown_revision_is_a_clear_error(repository: Git, tmp_path: Path, revision: str):
    commit(repository, tmp_path / "ws", "x")
    repository("tag", "v1")
    with pytest.raises(UserError, match="unknown git revision") as caught:
        git.commit_of(tmp_path / "ws", revision)
    assert "known: main, v1" in str(caught.value)


@pytest.mark.parametrize(
    ("asked", "old", "new"),
    [
        (("main...branch",), 1, 2),
        (("main...",), 1, 2),
        (("...branch",), 2, 2),
        (("main..branch",), 3, 2),
        (("main..",), 3, 2),
        (("..main",), 2, 3),
        (("main", "branch"), 3, 2),
    ],
)
def test_a_range_is_two_revisions_or_one_and_what_both_have_in_common(
    repository: Git, tmp_path: Path, asked: tuple[str, ...], old: int, new: int
):
    root = tmp_path / "ws"
    commit(repository, root, "train-one: {steps: 1}\n", "params.yaml")
    repository("checkout", "--quiet", "-b", "branch")
    commit(repository, root, "train-one: {steps: 2}\n", "params.yaml")
    repository("checkout", "--quiet", "main")
    commit(repository, root, "train-one: {steps: 3}\n", "params.yaml")
    repository("checkout", "--quiet", "branch")
    workspace = SimpleNamespace(root=root, store=MemoryStore)
    found = differences_between(workspace, asked[0], *asked[1:] or (None,))
    assert [(one.old, one.new) for one in found.recipes] == ([(old, new)] if old != new else [])
    with pytest.raises(UserError, match="names two revisions, and v9 is a third"):
        differences_between(workspace, "main...branch", "v9")
    repository("checkout", "--quiet", "--orphan", "other")
    commit(repository, root, "train-one: {steps: 4}\n", "params.yaml")
    with pytest.raises(UserError, match=r"main and other have no commit in common"):
        differences_between(workspace, "main...other", None)


def test_no_git_and_no_commits_are_clear_errors(tmp_path: Path, repository: Git):
    with pytest.raises(UserError, match="unknown git revision 'HEAD'"):
        git.commit_of(tmp_path / "ws", "HEAD")
    (tmp_path / ".git").rename(tmp_path / "gone")
    with pytest.raises(UserError, match="is not in a git repository"):
        git.commit_of(tmp_path / "ws", "HEAD")
    assert not git.has_commits(tmp_path / "ws")


def test_every_place_where_git_keeps_a_lock_counts(repository: Git, tmp_path: Path):
    root = tmp_path / "ws"
    commit(repository, root, "first")
    commit(repository, root, "nested", "deep/down/dvc.lock")
    commit(repository, root, "added", "data/rows.csv.dvc")
    commit(repository, root, "second")
    repository("checkout", "--quiet", "-b", "side")
    commit(repository, root, "side 1")
    commit(repository, root, "side 2")
    repository("checkout", "--quiet", "main")
    repository("merge", "--quiet", "--strategy", "ours", "side", "--message", "merged")
    repository("branch", "--delete", "--force", "side")
    for name in ("stashed first", "stashed second"):
        (root / "dvc.lock").write_text(name)
        repository("stash")
    commit(repository, root, "experiment")
    repository("update-ref", "refs/exps/ab/cd/name", "HEAD")
    commit(repository, root, "tagged")
    repository("tag", "--annotate", "t", "--message", "t")
    repository("tag", "--annotate", "tt", "t", "--message", "a tag of a tag")
    repository("reset", "--quiet", "--hard", "HEAD~2")
    commit(repository, root, "lost")
    repository("reset", "--quiet", "--hard", "HEAD~1")
    (root / "dvc.lock").write_text("staged")
    repository("add", "--all")
    (root / "dvc.lock").write_text("working tree")
    tips = {"second", "nested", "added", "stashed first", "stashed second", "experiment", "tagged", "staged"}
    assert versions(root, history=False) == tips
    assert versions(root, history=True) == tips | {"first", "side 1", "side 2"}


def test_both_sides_of_a_conflict_count(repository: Git, tmp_path: Path):
    root = tmp_path / "ws"
    commit(repository, root, "base")
    repository("checkout", "--quiet", "-b", "side")
    commit(repository, root, "theirs")
    repository("checkout", "--quiet", "main")
    commit(repository, root, "ours")
    with pytest.raises(subprocess.CalledProcessError):
        repository("merge", "side")
    repository("branch", "--delete", "--force", "side")
    assert versions(root, history=False) == {"base", "theirs", "ours"}


def test_a_repository_without_commits_and_one_with_odd_refs(repository: Git, tmp_path: Path):
    root = tmp_path / "ws"
    assert git.dvc_files(root, history=True) == set()
    commit(repository, root, "first")
    repository("update-ref", "refs/odd/blob", repository("hash-object", "-w", "dvc.lock"))
    assert versions(root, history=True) == versions(root, history=False) == {"first"}


def test_a_broken_repository_is_an_error_and_not_an_empty_one(repository: Git, tmp_path: Path):
    (tmp_path / ".git/HEAD").write_text("nonsense")
    assert git.has_repository(tmp_path / "ws")
    with pytest.raises(UserError, match="git"):
        git.dvc_files(tmp_path / "ws", history=True)


def test_an_object_that_git_has_lost_is_an_error(repository: Git, tmp_path: Path):
    with pytest.raises(UserError, match="is missing"):
        list(git.contents(tmp_path / "ws", ["1" * 40]))


def plot(low: float, high: float) -> bytes:
    lines = ("score,model,task,metric,value,low,high,rows", f"a exact_match,one,a,exact_match,0.5,{low},{high},40")
    return "\n".join((*lines, "base: a,base,a,exact_match,0.1,0.0,0.2,40", "a eos_rate,one,a,eos_rate,1,,,40")).encode()


@pytest.mark.parametrize(("low", "overlap", "shown"), [(0.5, True, "yes"), (0.61, False, "no"), (None, None, "")])
def test_intervals_of_both_values_stand_beside_them_and_say_whether_they_overlap(
    store: MemoryStore, low: float | None, overlap: bool | None, shown: str
):
    def state(title: str, value: float, *ends: float) -> State:
        plots = {"plots/evaluate-one.csv": plot(*ends)} if ends else {}
        metrics = {"metrics/evaluate-one.json": json.dumps({"a": {"exact_match": value, "rows": 40}}).encode()}
        return read_state(title, {"params.yaml": b"evaluate-one: {}\n", **metrics, **plots})

    changes = compare(state("old", 0.5, 0.4, 0.6), state("new", 0.75, *([low, 0.9] if low else [])), store)
    (change,) = changes.metrics
    assert (change.old_interval, change.intervals_overlap) == ((0.4, 0.6), overlap)
    ((_, columns, rows, legend),) = changes.tables()
    row = dict(zip(columns, rows[0], strict=True))
    assert row["old"] == "0.5 [0.4, 0.6]" and row.get("intervals overlap", "") == shown and ("no test" in legend) is bool(shown)
    assert changes.as_data()["metrics"][0]["intervals_overlap"] is overlap
    assert "old_interval" not in str(changes.as_data()["recipes"])
