"""What is referred to and what is not: named content, folders, plans, kept addresses, links, and bytes counted once."""

import json
import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.artifacts.garbage_collection import (
    Area,
    Garbage,
    _files,
    _measured,
    documents,
    expanded,
    forgotten,
    kept_by_digest,
    kept_by_plan,
    referred,
)
from engine.core.errors import UserError
from engine.dvc import dvcfile
from engine.dvc.dvcfile import Entry, Record
from engine.plan.decide import Planner
from tests.engine.plan.test_decide import built, chain, identities, identity
from tests.support.memory_store import MemoryStore, lock_text, statement

MD5 = st.text("0123456789abcdef", min_size=32, max_size=32)


@given(st.dictionaries(st.sampled_from(["train-a", "split-b", "mix-c"]), st.tuples(MD5, MD5), min_size=1))
def test_everything_that_a_lock_names_is_found(named):
    records = {
        name: Record(f"python -m stages x {name}", {"specs": Entry(dep + ".dir")}, {f"artifacts/{name}": Entry(out)})
        for name, (dep, out) in named.items()
    }
    contents, artifacts = referred([lock_text(records)])
    assert contents == {md5 for dep, out in named.values() for md5 in (dep + ".dir", out)}
    assert artifacts == set(named)


def test_conflict_marks_hide_nothing_and_longer_digests_are_no_content():
    text = b"<<<<<<< ours\n md5: " + b"a" * 32 + b"\n=======\n md5: " + b"b" * 32 + b".dir\n>>>>>>>\nsha256: " + b"c" * 64
    assert referred([text])[0] == {"a" * 32, "b" * 32 + ".dir"}


def test_folders_stand_for_all_their_files():
    store = MemoryStore()
    folder, other = store.put_folder({"x": "1", "deep/y": "2"}), store.put_folder({"z": "3"})
    assert expanded([folder.md5, "f" * 32 + ".dir"], store) == {folder.md5, "f" * 32 + ".dir", dvcfile.text_md5("1"), dvcfile.text_md5("2")}
    assert other.md5 not in expanded([folder.md5], store)


@pytest.mark.parametrize("damage", [b"[", b'[{"md5": 1}]', b"\xff", b"{}x", b"[1]"])
def test_a_damaged_listing_stops_everything(damage: bytes):
    store = MemoryStore(objects={"a" * 32 + ".dir": damage})
    with pytest.raises(UserError, match="damaged"):
        expanded(["a" * 32 + ".dir"], store)


def planned(graph, store, texts) -> set[str]:
    planner = Planner(graph, store, texts)
    decisions = [planner.decide(s) for s in graph]
    return kept_by_plan(planner, decisions, store.run_cache.values())


def outputs(store: MemoryStore, *runs: Record) -> set[str]:
    return {entry.md5 for run in runs for entry in run.outputs.values()}


def test_what_the_specs_would_restore_is_kept():
    graph, edited = chain(), chain(number=2.0)
    store = built(graph)
    earlier = list(store.run_cache.values())
    for s in edited:
        store.build(s, identity(s), {"rows.jsonl": f"edited rows of {s.name}"})
    assert planned(graph, store, identities(graph)) == outputs(store, *earlier)
    assert planned(edited, store, identities(edited)) == outputs(store, *store.records.values())


def test_earlier_runs_of_a_recipe_whose_inputs_are_not_known_yet_are_kept():
    graph, edited = chain(), chain(number=2.0)
    store = built(graph)
    a, b, c = store.run_cache.values()
    kept = planned(edited, store, identities(edited))
    assert outputs(store, b, c) <= kept and a.outputs[graph["toy-a"].artifact].md5 not in kept


def trained(store: MemoryStore, name: str, digest: str) -> Record:
    outs = {
        f"artifacts/{name}": store.put_folder({"w": name}),
        f"artifacts/{name}.provenance.json": store.put(statement(digest)),
    }
    return Record("x", {}, outs)


def test_an_address_keeps_the_run_of_its_artifact():
    store = MemoryStore()
    one, two = trained(store, "one", "sha256:" + "1a" * 32), trained(store, "two", "sha256:" + "2b" * 32)
    for address in ("sha256:" + "1a" * 32, "1a" * 32, "1a1a1a", "sha256:1a1a1a1a"):
        assert kept_by_digest([address], [one, two], store) == outputs(store, one)
    assert kept_by_digest(["1a1a1a", "2b2b2b"], [one, two], store) == outputs(store, one, two)
    assert kept_by_digest([], [one, two], store) == set()
    # The second run of the same content: both are kept, whichever is asked for later.
    again = trained(store, "again", "sha256:" + "1a" * 32)
    assert kept_by_digest(["1a1a1a"], [one, again], store) == outputs(store, one, again)


@pytest.mark.parametrize("address", ["3c3c3c", "1a", "", "sha256:"])
def test_an_address_that_no_run_has_is_an_error(address: str):
    store = MemoryStore()
    one = trained(store, "one", "sha256:" + "1a" * 32)
    damaged = Record("x", {}, {"artifacts/d.provenance.json": store.put("no json")})
    lost = Record("x", {}, {"artifacts/l.provenance.json": Entry("9" * 32)})
    with pytest.raises(UserError, match="no artifact in the cache has the content address"):
        kept_by_digest([address], [one, damaged, lost], store)


def write(path: Path, text: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_artifacts_of_no_step_go_with_their_provenance_and_nothing_else_does(tmp_path: Path):
    for name in ("train-gone", "train-named"):
        write(tmp_path / name / "adapter", "x")
        write(tmp_path / f"{name}.provenance.json")
    write(tmp_path / "my-notes" / "a.txt")
    write(tmp_path / "identity" / "train-gone.json")
    found = forgotten(sorted(tmp_path.iterdir()), {"train-named"})
    assert [path.name for path in found] == ["train-gone", "train-gone.provenance.json"]


def test_files_in_the_working_tree_that_name_content(tmp_path: Path):
    for name in ("dvc.lock", "sub/dvc.lock", "data/x.csv.dvc", ".dvc/tmp/exps/tmp1/dvc.lock"):
        write(tmp_path / name, name)
    for name in (".venv/dvc.lock", "artifacts/x/dvc.lock", "params.yaml"):
        write(tmp_path / name, "no")
    (tmp_path / "dangling.dvc").symlink_to("nowhere")
    found = sorted(text.decode() for text in documents(tmp_path, history=True))
    assert found == [".dvc/tmp/exps/tmp1/dvc.lock", "data/x.csv.dvc", "dvc.lock", "sub/dvc.lock"]


def test_links_out_of_the_workspace_are_not_followed(tmp_path: Path):
    root, outside = tmp_path / "root", tmp_path / "outside"
    write(outside / "scratch" / "precious", "x")
    write(root / "inside" / "y")
    (root / "artifacts").symlink_to(outside)
    (root / "near").symlink_to(root / "inside")
    area = Area(root)
    assert area.children("artifacts/scratch") == [] and area.skipped == ["artifacts/scratch"]
    assert [path.name for path in area.children("near")] == ["y"]
    assert area.children("absent") == [] and area.below("absent", 2) == []


def measured(**groups: list[Path]) -> dict[str, tuple[int, int]]:
    return {group.name: (group.files, group.size) for group in _measured(groups)}


def test_bytes_are_those_of_the_files_and_links_count_as_themselves(tmp_path: Path):
    write(tmp_path / "a" / "b" / "x", "12345")
    write(tmp_path / "a" / "y", "123")
    write(tmp_path / "far" / "z", "a long text far away")
    (tmp_path / "a" / "to-far").symlink_to(tmp_path / "far")
    link = len(str(tmp_path / "far"))
    assert measured(g=[tmp_path / "a"]) == {"g": (3, 8 + link)}
    assert sorted(path.name for path in _files(tmp_path / "a")) == ["to-far", "x", "y"]


def test_bytes_of_a_file_with_two_names_are_free_when_both_go(tmp_path: Path):
    write(tmp_path / "one", "12345")
    os.link(tmp_path / "one", tmp_path / "two")
    assert measured(g=[tmp_path / "one"]) == {"g": (1, 0)}
    assert measured(g=[tmp_path / "one"], h=[tmp_path / "two"]) == {"g": (1, 0), "h": (1, 5)}


def test_bytes_are_what_du_says(tmp_path: Path):
    for number in range(20):
        write(tmp_path / f"d{number % 3}" / f"f{number}", "x" * number * 100)
    tops = sorted(tmp_path.iterdir())
    files = [str(path) for top in tops for path in top.iterdir()]
    said = subprocess.run(["du", "--bytes", "--total", *files], capture_output=True, text=True, check=True).stdout
    assert measured(g=tops)["g"][1] == int(said.splitlines()[-1].split()[0])


def test_the_last_line_says_whether_anything_was_removed(tmp_path: Path):
    path = write(tmp_path / "x", "1" * 1234)
    garbage = Garbage(tuple(_measured({"logs": [path], "checkpoints": []})), ("artifacts",), ("train-a-0123456789ab",))
    assert garbage.summary(removed=True) == "freed 1,234 bytes in 1 file"
    assert garbage.summary(removed=False).startswith("would free 1,234 bytes") and "--force" in garbage.summary(removed=False)
    assert garbage.rows() == [["logs", "1", "1,234"]] and len(garbage.remarks()) == 2
    data = json.loads(json.dumps(garbage.as_data(tmp_path, removed=False)))
    assert data["freed_bytes"] == 1234 and data["groups"][0]["paths"] == ["x"]
