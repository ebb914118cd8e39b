"""fetch against a server on loopback that is shaped as the hub is: revisions, files, gates; no code and no pickle is taken."""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

COMMIT = "a" * 40
FILES = {
    "config.json": b"{}",
    "tokenizer.json": b'{"a": 1}',
    "tokenizer_config.json": b"{}",
    "model.safetensors": b"weights",
    "modeling_evil.py": b"import os",
    "pytorch_model.bin": b"pickle",
}
CODE = """
import sys
from pathlib import Path
from engine.core.errors import UserError
from stages.process.job import Job
from stages.fetch import Parameters
from stages.fetch.body import run
try:
    print(run(Parameters(id=sys.argv[1], revision=sys.argv[2]), Job("fetch-x", {}, Path("out"), None, Path("scratch"))))
except UserError as error:
    sys.exit(str(error))
"""


class Hub(BaseHTTPRequestHandler):
    def do_HEAD(self) -> None:
        self.answer(with_body=False)

    def do_GET(self) -> None:
        self.answer(with_body=True)

    def answer(self, with_body: bool) -> None:
        path = self.path.split("?")[0].strip("/")
        if "gated" in path:
            return self.reply(403, b"", {"X-Error-Code": "GatedRepo"}, with_body)
        if not path.removeprefix("api/models/").startswith("me/tiny"):
            return self.reply(404, b"", {"X-Error-Code": "RepoNotFound"}, with_body)
        if COMMIT not in path:
            return self.reply(404, b"", {"X-Error-Code": "RevisionNotFound"}, with_body)
        if path.startswith("api/"):
            files = [{"rfilename": name} for name in FILES]
            if "/tree/" in path:
                files = [{"type": "file", "path": name, "size": len(data), "oid": "0" * 40} for name, data in FILES.items()]
                return self.reply(200, json.dumps(files).encode(), {"Content-Type": "application/json"}, with_body)
            body = json.dumps({"id": "me/tiny", "modelId": "me/tiny", "sha": COMMIT, "siblings": files}).encode()
            return self.reply(200, body, {"Content-Type": "application/json"}, with_body)
        data = FILES.get(path.rsplit("/", 1)[1])
        if data is None:
            return self.reply(404, b"", {"X-Error-Code": "EntryNotFound"}, with_body)
        return self.reply(200, data, {"ETag": f'"{hashlib.sha1(data).hexdigest()}"', "X-Repo-Commit": COMMIT}, with_body)

    def reply(self, status: int, body: bytes, headers: dict[str, str], with_body: bool) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if with_body:
            self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        """Quiet."""


@pytest.fixture(scope="module")
def hub() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def fetch(hub: str, folder: Path, model: str, revision: str = COMMIT) -> subprocess.CompletedProcess[str]:
    (folder / "out").mkdir()
    root = str(Path(__file__).parents[3])
    environment = {**os.environ, "HF_ENDPOINT": hub, "HF_HOME": str(folder / "home"), "PYTHONPATH": root, "HF_HUB_DISABLE_XET": "1"}
    environment.pop("HF_HUB_OFFLINE", None)
    return subprocess.run(
        [sys.executable, "-c", CODE, model, revision], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


def test_a_revision_becomes_an_artifact_without_code_and_pickles(hub, tmp_path):
    done = fetch(hub, tmp_path, "me/tiny")
    assert done.returncode == 0, done.stderr
    assert {p.name for p in (tmp_path / "out").rglob("*")} == {
        "config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "model.safetensors",
    }
    assert (tmp_path / "out/model.safetensors").read_bytes() == b"weights"
    assert "'files': 4" in done.stdout


@pytest.mark.parametrize(
    ("model", "revision", "message"),
    [
        ("me/nothing", COMMIT, "the hub has no model me/nothing"),
        ("me/tiny", "b" * 40, "me/tiny has no revision"),
        ("me/gated", COMMIT, "me/gated is gated"),
    ],
)
def test_what_the_hub_refuses_is_a_clear_error(hub, tmp_path, model, revision, message):
    done = fetch(hub, tmp_path, model, revision)
    assert done.returncode == 1 and message in done.stderr and "hint" in done.stderr and "Traceback" not in done.stderr


def test_a_hub_that_is_not_there_is_a_clear_error(tmp_path):
    done = fetch("http://127.0.0.1:9", tmp_path, "me/tiny")
    assert done.returncode == 1 and "me/tiny could not be downloaded: no connection to the hub at http://127.0.0.1:9" in done.stderr
    assert "[model] path or gguf" in done.stderr and "Retrying" not in done.stderr and "Traceback" not in done.stderr
