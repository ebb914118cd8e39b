"""A moving name of a data set's revision is refused, with the commit that it names now."""

from pathlib import Path

import pytest

from engine.compile.compiler import compile_graph
from engine.compile.hub import commit_of
from engine.core.errors import UserError
from engine.spec.load import load_specs
from tests.stages.generate.hub_server import COMMIT, HubServer
from tests.support.toys import toy

TITLES = """\
source = { kind = "hub", id = "me/papers", revision = "%s" }
prompts = ["{{ text }}"]
teacher = { kind = "gold", column = "title" }"""


def compiled(folder: Path, revision: str):
    (folder / "papers.toml").write_text(toy({"title": TITLES % revision}), "utf-8")
    return compile_graph(load_specs([folder / "papers.toml"], folder))


@pytest.fixture
def server(monkeypatch):
    server = HubServer({}).start()
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    yield server
    server.shutdown()


def test_a_branch_is_refused_with_the_commit_that_it_names_now(tmp_path, server):
    with pytest.raises(UserError) as caught:
        compiled(tmp_path, "main")
    (found,) = caught.value.problems
    assert found.what == "revision of me/papers must be a full commit hash (40 hex digits), got 'main'"
    assert "engine pin" in found.hint and COMMIT in found.hint
    assert (found.where.line, found.where.source[found.where.column - 1 :][:6]) == (9, '"main"')


def test_a_branch_that_the_hub_does_not_know_is_refused_all_the_same(tmp_path, server):
    with pytest.raises(UserError, match="got 'v9'") as caught:
        compiled(tmp_path, "v9")
    assert "engine pin" in caught.value.problems[0].hint


def test_a_commit_is_compiled_without_asking_anybody(tmp_path, server):
    graph = compiled(tmp_path, COMMIT)
    assert graph["generate-title"].parameters.source.revision == COMMIT and not server.asked


def test_a_hub_that_is_not_there_says_nothing(monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert commit_of("dataset", "me/papers", "main") is None
    monkeypatch.setenv("HF_ENDPOINT", "file:///etc")
    assert commit_of("dataset", "me/papers", "main") is None
