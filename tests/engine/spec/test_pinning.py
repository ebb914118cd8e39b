"""`engine pin` writes commits in place of branches and tags, and changes nothing else."""

import json
import tomllib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.core.errors import UserError
from engine.spec.pinning import moving_in, pin
from tests.support.commands import engine

COMMIT, OTHER = "a" * 40, "b" * 40
KNOWN = {"/api/models/me/model/revision/main": COMMIT, "/api/datasets/me/rows/revision/v1.0": OTHER}
PART = """\
# The model of all.
[model]   # pinned by whoever reads this
id       = "me/model"      # small
revision = 'main'          # a branch

[tasks.a]
source = { kind = "hub", id = "me/rows", revision = "v1.0" , split = "train" }  # rows
"""
SPEC = 'extends = ["parts/common.toml"]\n\n[experiment]\nname = "a"\n'


class _Hub(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        commit = KNOWN.get(self.path)
        self.send_response(200 if commit else 404)
        self.end_headers()
        self.wfile.write(json.dumps({"sha": commit} if commit else {}).encode())

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch):
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Hub)
    Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    yield
    server.shutdown()


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    for name, text in {"parts/common.toml": PART, "a.toml": SPEC}.items():
        path = tmp_path / "specs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


def test_models_and_data_sets_are_pinned_in_the_part_that_names_them_and_comments_stay(workspace: Path, hub):
    done = engine(workspace, "pin", "specs/a.toml")
    assert done.returncode == 0, done.stderr
    text = (workspace / "specs/parts/common.toml").read_text()
    assert text == PART.replace("'main'", f'"{COMMIT}"').replace('"v1.0"', f'"{OTHER}"')
    assert (workspace / "specs/a.toml").read_text() == SPEC
    assert f"specs/parts/common.toml:4  me/model  main → {COMMIT}" in done.stderr
    assert "every revision is a commit" in engine(workspace, "pin").stderr


def test_a_dry_run_writes_nothing_and_json_says_what_it_would(workspace: Path, hub):
    done = engine(workspace, "pin", "--dry-run", "--json")
    assert (workspace / "specs/parts/common.toml").read_text() == PART
    pinned = json.loads(done.stdout)["pinned"]
    assert [(one["id"], one["line"], one["to"]) for one in pinned] == [("me/model", 4, COMMIT), ("me/rows", 7, OTHER)]


def test_where_the_hub_knows_one_of_two_nothing_is_written_and_the_other_is_named_with_its_line(workspace: Path, hub):
    path = workspace / "specs/parts/common.toml"
    path.write_text(PART.replace("v1.0", "v2.0"))
    done = engine(workspace, "pin")
    assert done.returncode == 1 and "the hub gives no commit for me/rows at 'v2.0'" in done.stderr and "common.toml:7" in done.stderr
    assert path.read_text() == PART.replace("v1.0", "v2.0")


def test_a_file_that_is_no_toml_is_a_located_error(tmp_path: Path):
    (tmp_path / "x.toml").write_bytes(b"[a")
    with pytest.raises(UserError, match="not valid TOML"):
        moving_in(tmp_path / "x.toml", "x.toml")


NAMES = st.text("abcxyz", min_size=1, max_size=4)
SPACES, COMMENTS = st.text(" \t", max_size=3), st.text("abc# \"'=[]", max_size=8)


@st.composite
def documents(draw: st.DrawFn) -> str:
    mark = draw(st.sampled_from(["", "\ufeff"]))
    lines = []
    for name in draw(st.lists(NAMES, unique=True, min_size=1, max_size=4)):
        revision = draw(st.sampled_from(["main", "v1", "é", "0" * 39, "c" * 40]))
        if draw(st.booleans()):
            lines += [f"[{name}]", f'id = "me/{name}"', f'revision{draw(SPACES)}={draw(SPACES)}"{revision}"{draw(SPACES)}#{draw(COMMENTS)}']
        else:
            lines += [f"[{name}]", f'x = [ {{ id = "é/{name}", revision="{revision}" }}, 1 ] #{draw(COMMENTS)}']
    return mark + "".join(line + draw(st.sampled_from(["\n", "\r\n"])) for line in lines)


@given(documents())
def test_only_the_moving_revisions_change_and_everything_else_stays_to_the_byte(tmp_path_factory: pytest.TempPathFactory, text: str):
    file = tmp_path_factory.mktemp("pin") / "a.toml"
    file.write_bytes(text.encode())
    found = moving_in(file, "a.toml")
    written = pin(file, {one.key: COMMIT for one in found})
    expected = text
    for one in dict.fromkeys(one.revision for one in found):
        expected = expected.replace(f'"{one}"', f'"{COMMIT}"')
    assert written == expected
    tomllib.loads(written.removeprefix("\ufeff").replace("\r\n", "\n"))
    file.write_bytes(written.encode())
    assert moving_in(file, "a.toml") == ()
