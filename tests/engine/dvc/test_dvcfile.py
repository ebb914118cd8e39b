"""Our reading of DVC's formats against DVC itself: hashes, run-cache keys and listings of a real `dvc repro`."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.build.driver import dvc_environment
from engine.core.errors import Location
from engine.core.graph import Graph, Input, Step
from engine.dvc import dvcfile
from engine.dvc.disk import Disk
from engine.dvc.dvcfile import Entry, Record
from engine.dvc.hashing import Hashes
from stages import split

PIPELINE = """
stages:
  make:
    cmd: mkdir -p out/deep && cp rows.txt out/deep/ü.txt && cp rows.txt out/a-b && cp tool.sh out/a.b && echo '{}' > m.json && sleep 0
    deps: [data, rows.txt, tool.sh]
    outs: [out]
    metrics: [m.json: {cache: false}]
  use:
    cmd: cp out/deep/ü.txt copy.txt
    deps: [out/deep]
    outs: [copy.txt]
"""


@pytest.fixture(scope="module")
def repository(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("dvc")
    (root / "dvc.yaml").write_text(PIPELINE)
    (root / "rows.txt").write_text("one\ntwo\n")
    (root / "tool.sh").write_text("#!/bin/sh\n")
    (root / "tool.sh").chmod(0o755)
    (root / "data" / "__pycache__").mkdir(parents=True)
    (root / "data" / "__pycache__" / "x.pyc").write_text("no")
    (root / "data" / "inner" / ".dvc").mkdir(parents=True)
    (root / "data" / "inner" / "rows").write_text("another workspace's")
    (root / "data" / "b.txt").write_text("b")
    (root / "data" / "a.txt").write_text("a")
    (root / ".dvcignore").write_text("# c\n__pycache__\n*.pyc\n")
    for command in (["init", "-q", "--no-scm"], ["repro", "-q"]):
        subprocess.run([sys.executable, "-m", "dvc", *command], cwd=root, env=dvc_environment(), check=True)
    return root


def test_files_and_folders_hash_as_dvc_does(repository):
    store = Disk(repository, Hashes(repository))
    for name in ("make", "use"):
        record = store.record(name)
        assert record and record.outputs and record.dependencies
        for path, entry in {**record.dependencies, **record.outputs}.items():
            assert store.entry(path) == entry, path
    make = store.record("make")
    assert make and make.dependencies["tool.sh"].executable and make.outputs["out"].is_folder


def test_run_cache_keys_are_dvcs(repository):
    store = Disk(repository, Hashes(repository))
    for name in ("make", "use"):
        record = store.record(name)
        assert record
        runs = list(store.runs(dvcfile.run_key(record.command, record.dependencies, record.outputs)))
        assert runs == [record]
        assert store.runs_with(*next((path, entry.md5) for path, entry in record.dependencies.items()))
        assert all(store.holds(entry) for entry in record.outputs.values())
    assert not list(store.runs("0" * 64)) and not store.runs_with("rows.txt", "0" * 32)


def test_a_folder_inside_an_output_has_the_hash_that_dvc_gives_it(repository):
    store = Disk(repository, Hashes(repository))
    make, use = store.record("make"), store.record("use")
    assert make and use
    files = store.tree(make.outputs["out"].md5)
    assert files and sorted(files) == ["a-b", "a.b", "deep/ü.txt"]
    assert dvcfile.inside_tree(files, "deep") == use.dependencies["out/deep"].md5
    assert dvcfile.inside_tree(files, "deep/ü.txt") == files["deep/ü.txt"]
    assert dvcfile.inside_tree(files, "missing") is None


def test_a_folder_whose_file_is_gone_from_the_cache_is_not_held(repository, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(repository, copy)
    store = Disk(copy, Hashes(copy))
    record = store.record("make")
    assert record and store.holds(record.outputs["out"])
    files = store.tree(record.outputs["out"].md5)
    assert files
    (copy / dvcfile.CACHE / dvcfile.object_path(files["a.b"])).unlink()
    assert not store.holds(record.outputs["out"])


def test_hashes_are_remembered_but_never_of_a_file_that_may_still_change(tmp_path):
    path, memo = tmp_path / "rows", tmp_path / "cache" / "memo.json"
    path.write_text("one")
    hashes = Hashes(tmp_path, memo)
    first = hashes.entry("rows")
    path.write_text("two")  # same size, and perhaps the same clock tick
    assert hashes.entry("rows") != first
    long_ago = 1_600_000_000_000_000_000
    os.utime(path, ns=(long_ago, long_ago))
    hashes.entry("rows")
    hashes.save()
    known = Hashes(tmp_path, memo)
    assert str(path) in known._known
    assert known.entry("rows") == hashes.entry("rows")
    memo.write_text("{broken")
    assert Hashes(tmp_path, memo).entry("rows") == hashes.entry("rows")


def test_a_broken_lock_is_a_located_error(tmp_path):
    (tmp_path / "dvc.lock").write_text("stages: [\n")
    from engine.core.errors import UserError

    with pytest.raises(UserError, match=r"cannot read dvc\.lock"):
        Disk(tmp_path, Hashes(tmp_path)).record("x")


def test_the_dumped_pipeline_has_no_anchors_and_keeps_order():
    from tests.engine.plan.test_decide import chain

    graph = chain()
    text = dvcfile.pipeline_text(graph)
    content = yaml.safe_load(text)
    assert list(content["stages"]) == ["resolve", "toy-a", "toy-b", "toy-c"]
    assert content["stages"]["resolve"]["always_changed"] is True
    assert content["stages"]["toy-b"]["deps"] == ["artifacts/identity/toy-b.json", "artifacts/toy-a/rows.jsonl"]
    assert "&id" not in text and "number" not in text
    assert yaml.safe_load(dvcfile.params_text(graph))["toy-a"] == {"number": 1.0, "resources": {"workers": 1}}


def test_the_half_of_an_entry_that_a_killed_dvc_left_is_no_run(repository, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(repository, copy)
    record = Disk(copy, Hashes(copy)).record("make")
    assert record
    key = dvcfile.run_key(record.command, record.dependencies, record.outputs)
    for half in ("", "cmd", "[1", "deps: 3"):
        (copy / dvcfile.CACHE / dvcfile.run_folder(key) / ".tmp").write_text(half)
        assert list(Disk(copy, Hashes(copy)).runs(key)) == [None, record]


READ = st.dictionaries(st.text(), st.just(Entry("1" * 32, size=3)))
RECORDS = st.dictionaries(
    st.from_regex(r"[a-z][a-z0-9_-]{0,8}", fullmatch=True),
    st.builds(
        Record, st.text(), st.dictionaries(st.text(), st.just(Entry("1" * 32, size=3))), st.just({"out": Entry("2" * 32, True, 5, 2)})
    ),
)


@given(RECORDS, st.lists(RECORDS, max_size=3))
def test_a_lock_in_pieces_is_what_writing_all_of_it_gives(before: dict[str, Record], updates: list[dict[str, Record]]):
    """The pieces are put together as PyYAML would write the whole."""
    stages = {name: dvcfile.lock_stage(record) for name, record in before.items()}
    whole = {"schema": "2.0", "stages": {name: stage for name, stage in stages.items() if not dvcfile.is_place(stage)}}
    lock = dvcfile.LockText(dvcfile._dump(whole))
    for records in updates:
        lock.update(records)
        whole["stages"] |= {name: dvcfile.lock_stage(record) for name, record in records.items()}
    whole["stages"] = dict(sorted(whole["stages"].items()))
    assert lock.text().decode() == dvcfile._dump(whole)
    assert dvcfile.parse_lock(lock.text()) == before | {name: record for records in updates for name, record in records.items()}


ANY = st.characters(codec="utf-8", exclude_characters="\0")
PATHS = st.text(st.one_of(st.sampled_from("${}\\a./ '\"#&*:[]"), ANY), min_size=1, max_size=30)


@pytest.fixture(scope="module")
def resolved(tmp_path_factory):
    """What DVC itself makes of the stages in a text of `dvc.yaml`."""
    from dvc.parsing import DataResolver
    from dvc.repo import Repo

    root = tmp_path_factory.mktemp("parsed")
    subprocess.run(["git", "init", "-q", str(root)], check=True)
    repository = Repo.init(str(root))
    (root / "params.yaml").write_text(dvcfile._dump({"generate-a": {"prompts": ["${nothing} ${"], "${key}": 1}}), "utf-8")

    def resolve(text: str):
        resolver = DataResolver(repository, str(root), dvcfile.parse_yaml(text))
        return {name: resolver.resolve_one(name)[name] for name in resolver.get_keys()}

    return resolve


def step_over(paths: list[str], description: str = "Rows.") -> Step:
    reads = {str(number): Input(path) for number, path in enumerate(paths)}
    return Step("split-a", split.KIND, split.Parameters(), reads, description, Location("a.toml"))


@settings(deadline=None, max_examples=150)
@given(st.lists(PATHS, min_size=1, max_size=4, unique=True), PATHS)
def test_dvc_reads_every_path_and_text_back_as_it_was(resolved, paths, description):
    text = dvcfile.pipeline_text(Graph([step_over(paths, description)]))
    found = resolved(text)
    assert sorted(found["split-a"]["deps"]) == sorted({*paths, dvcfile.RESOLVED, "artifacts/identity/split-a.json"})
    assert found["split-a"]["desc"] == description


@pytest.mark.parametrize("path", ["a${b}.jsonl", "${a}", "a${b", "$${a}", "a\\${b}", "${a${b}}", "${}", "a}${b}{", "$ {a}"])
def test_dvc_reads_what_looks_like_a_parameter_as_a_path(resolved, path):
    found = resolved(dvcfile.pipeline_text(Graph([step_over([path])])))
    assert found["split-a"]["deps"] == sorted([path, dvcfile.RESOLVED, "artifacts/identity/split-a.json"])
