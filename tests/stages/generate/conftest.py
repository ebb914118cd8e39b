"""One chat server for all tests of a module, forgetful between them."""

import pytest

from stages.generate.asking import limits
from tests.stages.generate.chat_server import Server, running
from tests.stages.generate.chatting import KEY


@pytest.fixture(scope="module")
def shared():
    with running() as server:
        yield server


@pytest.fixture
def server(shared: Server, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TEACHER_KEY", KEY)
    monkeypatch.setattr(limits, "FIRST_REST", 0.02)
    shared.set(delay=0.0, per_window=None, received=[], answered=[], seen={}, scripted={}, most_in_flight=0)
    return shared
