"""Jobs, listings and checkpoints in a store, which others can write: no path in them leaves the folder of the job."""

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.core.errors import UserError
from engine.dvc import dvcfile
from engine.dvc.dvcfile import Entry
from engine.jobs.sealed import SealedJob, ended, parse, parsed_runs, path_of
from engine.jobs.worker import StoreAddress, Worker

NAMES = st.sampled_from(["..", ".", "", "a", "b.c", "...", "..a", ".dvc", "artifacts", "~", "\0", "\n", "C:", "\\\\", "/"])
PATHS = st.lists(NAMES, min_size=1, max_size=5).map("/".join)
MD5 = "0" * 32


def job(reads: dict[str, Entry], step: str = "split-a", kind: str = "split", **changed: object) -> SealedJob:
    identity = json.dumps({"inputs": {str(number): path for number, path in enumerate(reads)}})
    outputs = (f"artifacts/{step}", f"artifacts/{step}.provenance.json", f"metrics/{step}.json")
    all_reads = {**reads, f"artifacts/identity/{step}.json": Entry(dvcfile.text_md5(identity))}
    return SealedJob(
        **{
            "step": step,
            "kind": kind,
            "command": dvcfile.command_of(kind, step),
            "identity": identity,
            "resources": "{}",
            "reads": all_reads,
            "outputs": outputs,
        }
        | changed
    )


def is_below(path: str, folder: str = "/job") -> bool:
    found = os.path.normpath(f"{folder}/{path}")
    return found.startswith(f"{folder}/")


def accepted(text: str) -> SealedJob | None:
    try:
        return parse(text)
    except UserError:
        return None


@given(PATHS, st.sampled_from(["reads", "outputs", "step"]))
def test_no_path_of_a_job_leaves_its_folder(path: str, place: str):
    made = {"reads": lambda: job({path: Entry(MD5)}), "outputs": lambda: job({}, outputs=(path,)), "step": lambda: job({}, step=path)}[
        place
    ]()
    if found := accepted(made.text()):
        written = [each for each in found.reads if not each.startswith("/")]
        for each in (*written, *found.outputs, f"artifacts/identity/{found.step}.json"):
            assert is_below(each) and "\0" not in each
            assert not os.path.normpath(each).startswith(".dvc/")


@pytest.mark.parametrize(
    ("kind", "nodes", "read"),
    [("train", 2, 2), ("train", 0, None), ("train", "2", None), ("train", [], None), ("split", 2, None), ("split", 1, 1)],
)
def test_only_a_training_runs_on_several_nodes(kind: str, nodes: object, read: int | None):
    found = accepted(job({}, f"{kind}-a", kind, resources=json.dumps({"resources": {"nodes": nodes}})).text())
    assert (found and found.nodes) == read


@given(PATHS)
def test_no_path_of_a_listing_leaves_its_folder(path: str):
    try:
        found = dvcfile.parse_tree(dvcfile.tree_bytes({path: MD5}))
    except ValueError:
        return
    assert all(is_below(each) and "\0" not in each for each in found)


@given(st.text("0a./", max_size=40))
def test_no_content_has_a_name_that_leaves_the_cache(md5: str):
    if dvcfile.is_object(md5):
        assert is_below(dvcfile.object_path(md5), "/cache/files/md5") or is_below(dvcfile.object_path(md5), "/cache")
        assert "." not in md5.removesuffix(".dir") and "/" not in md5
    assert accepted(job({"data/a": Entry(md5)}).text()) is None or dvcfile.is_object(md5)


def test_what_a_build_seals_is_accepted_and_comes_back_the_same():
    sealed = job(
        {"data/a b/ä.jsonl": Entry(MD5, True, 3), "/shared/b.jsonl": Entry(MD5), "artifacts/tokens/x.y": Entry(f"{MD5}.dir", False, 3, 1)}
    )
    assert parse(sealed.text()) == sealed and parse(sealed.text()).key == sealed.key


@pytest.mark.parametrize(
    "changed",
    [
        {"command": "python -P -m adapterbuild stages train split-a"},
        {"command": "python -P -m adapterbuild stages split split-b"},
        {"resources": "[]"},
        {"identity": "{}"},
        {"identity": '{"inputs": {"rows": "data/other"}}'},
    ],
)
def test_a_job_whose_parts_contradict_each_other_is_refused(changed: dict[str, object]):
    assert accepted(job({}, **changed).text()) is None


@given(
    st.recursive(
        st.none() | st.integers() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    )
)
def test_texts_of_others_are_refused_and_break_nothing(value: object):
    assert accepted(json.dumps(value)) is None and ended(json.dumps(value)) is None and ended(json.dumps(value)[:-1]) is None


def test_damaged_entries_of_the_run_cache_are_no_runs(tmp_path: Path):
    (tmp_path / "half").write_bytes(b"cmd: x\nouts:\n- path: a\n  md5: ../../a")
    (tmp_path / "binary").write_bytes(b"\xff\x00")
    assert parsed_runs(tmp_path) == [] and parsed_runs(tmp_path / "missing") == []


def put(store: Path, data: bytes, suffix: str = "") -> Entry:
    md5 = dvcfile.bytes_md5(data) + suffix
    path = store / dvcfile.object_path(md5)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return Entry(md5)


@pytest.mark.parametrize("kind", ["path", "listing"])
def test_a_worker_refuses_a_job_that_would_write_elsewhere_and_writes_nothing_there(tmp_path: Path, kind: str):
    store = tmp_path / "store"
    content = put(store, b"evil")
    if kind == "listing":
        listing = json.dumps([{"md5": content.md5, "relpath": "../../../escaped"}]).encode()
        sealed = job({"data/a": put(store, listing, ".dir")})
    else:
        sealed = job({"../escaped": content})
    text = store / "adapterbuild" / path_of(sealed.key)
    text.parent.mkdir(parents=True)
    text.write_text(sealed.text())
    folder = tmp_path / "below" / "job"
    folder.mkdir(parents=True)
    assert Worker(StoreAddress(str(store)), "one", tmp_path / "cache", patience=0).run(sealed.key, folder) == 1
    assert not list(tmp_path.rglob("escaped"))


def test_a_worker_is_told_every_setting_of_the_remote_that_is_no_secret():
    told = {
        "account_name": "team",
        "tenant_id": "t",
        "projectname": "p",
        "endpointurl": "http://127.0.0.1:9",
        "sse_kms_key_id": "k",
        "exclude_environment_credential": "true",
    }
    kept = {
        "account_key": "x",
        "sas_token": "x",
        "client_secret": "x",
        "secret_access_key": "x",
        "access_key_id": "x",
        "oss_key_id": "x",
        "sse_customer_key": "x",
        "custom_auth_header": "x",
        "passphrase": "x",
        "credentialpath": "/home/me/keys",
        "keyfile": "/home/me/.ssh/id",
        "bearer_token_command": "x",
        "configpath": "/home/me/.aws/config",
    }
    address = StoreAddress.of({"url": "azure://work", **told, **kept})
    assert address.url == "azure://work" and address.options == told
    for name in kept.keys() - {"configpath"}:
        with pytest.raises(UserError, match=f"store option {name} is a secret"):
            StoreAddress("azure://work", {name: "x"})
