"""The chat teacher against a real server: `transformers serve` with a tiny model that nobody has trained."""

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from stages.generate.asking.cache import Answers, answers_path
from tests.stages.generate.chatting import ask, chat
from tests.stages.initialize.tiny import make_model

pytestmark = pytest.mark.slow

TEMPLATE = "{% for message in messages %}{{ message.content }}{% endfor %}{% if add_generation_prompt %}:{% endif %}"


class Endpoint:
    """Where the server listens, as `chat` wants it."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}/v1"


@pytest.fixture
def serving(tmp_path: Path):
    """The server and the folder of its model."""
    folder = make_model(tmp_path / "made", "llama", max_length=512)
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        str(Path(sys.executable).parent / "transformers"),
        "serve",
        str(folder),
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--device",
        "cpu",
    ]
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hub"), "OMP_NUM_THREADS": "1"}
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment)
    try:
        wait_for(f"http://127.0.0.1:{port}/health", process, tmp_path / "log")
        yield Endpoint(port), folder
    finally:
        process.kill()
        process.wait()


def wait_for(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 180
    while time.monotonic() < deadline and process.poll() is None:
        try:
            urllib.request.urlopen(url, timeout=2)
            return
        except urllib.error.HTTPError:
            return  # it answers
        except OSError:
            time.sleep(0.2)
    pytest.fail(log.read_text("utf-8", "replace")[-2000:])


def test_a_real_server_answers_and_is_asked_once(serving, tmp_path, monkeypatch):
    endpoint, folder = serving
    monkeypatch.chdir(tmp_path)
    teacher = chat(endpoint, model=str(folder), api_key_env=None, max_tokens=4, temperature=0.0, timeout=60.0, in_flight=2, refusals=())
    prompts = ["say red", "say blue", "say red"]
    first = ask(teacher, prompts, system="Be brief.")
    assert len(first) == 3 and first[0] == first[2]
    with Answers(answers_path()) as kept:
        known = kept.averages(endpoint.url, str(folder))
    assert known.answers == 2 and known.bytes_per_token, "the server tells what an answer took"
    # The same again, with a server that is gone: every answer is kept.
    gone = chat(endpoint, model=str(folder), api_key_env=None, max_tokens=4, temperature=0.0, timeout=1.0, retries=0)
    monkeypatch.setattr("stages.generate.asking.client.Client.ask", None)
    assert ask(gone, prompts, system="Be brief.") == first
