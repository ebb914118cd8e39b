"""A stand-in for the Hugging Face hub on loopback, as far as huggingface_hub makes repositories, commits to them and reads them.

Source: what huggingface_hub 2.4 sends, and https://github.com/git-lfs/git-lfs/blob/main/docs/api/batch.md
"""

import base64
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.parse import unquote, urlsplit

LARGE = (".safetensors", ".gguf")
"""What the hub keeps as large files."""


@dataclass
class Repository:
    """One repository with its history."""

    private: bool
    licence: str | None = None
    commits: list[tuple[str, str, dict[str, bytes]]] = field(default_factory=list)
    """Each with its hash, message and all files."""

    @property
    def head(self) -> str:
        return self.commits[-1][0]

    @property
    def files(self) -> dict[str, bytes]:
        return self.commits[-1][2]

    def commit(self, files: dict[str, bytes], message: str) -> str:
        made = hashlib.sha1(f"{len(self.commits)} {message} {sorted(files)}".encode()).hexdigest()
        self.commits.append((made, message, files))
        return made

    def at(self, revision: str) -> dict[str, bytes] | None:
        return next((files for commit, _, files in reversed(self.commits) if revision in ("main", commit)), None)


@dataclass
class Hub:
    """What the hub holds, and what it was asked."""

    url: str = ""
    token: str = "hf_secret"
    repositories: dict[str, Repository] = field(default_factory=dict)
    large: dict[str, bytes] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def add(self, name: str, files: dict[str, bytes], licence: str | None = None) -> Repository:
        made = self.repositories[name] = Repository(False, licence)
        made.commit(files, "initial commit")
        return made


def _handler(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self.answer("HEAD")

        def do_GET(self) -> None:
            self.answer("GET")

        def do_POST(self) -> None:
            self.answer("POST")

        def do_PUT(self) -> None:
            self.answer("PUT")

        def body(self) -> bytes:
            if self.headers.get("Transfer-Encoding") == "chunked":
                parts = []
                while size := int(self.rfile.readline(), 16):
                    parts.append(self.rfile.read(size))
                    self.rfile.readline()
                self.rfile.readline()
                return b"".join(parts)
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))

        def answer(self, method: str) -> None:
            path = unquote(urlsplit(self.path).path).strip("/")
            hub.asked.append(f"{method} {path}")
            body = self.body()
            match path.split("/"):
                case ["lfs", oid] if method == "PUT":
                    assert hashlib.sha256(body).hexdigest() == oid
                    hub.large[oid] = body
                    return self.reply(200, b"")
                case ["api", "validate-yaml"]:
                    return self.json({"errors": [], "warnings": []})
            if method == "POST" and self.headers.get("Authorization") != f"Bearer {hub.token}":
                return self.json({"error": "Invalid username or password."}, 401)
            match path.split("/"):
                case ["api", "repos", "create"]:
                    asked = json.loads(body)
                    name = f"{asked.get('organization') or 'me'}/{asked['name']}"
                    made = hub.repositories[name] = Repository(asked.get("visibility") == "private")
                    made.commit({".gitattributes": b"*.safetensors filter=lfs\n"}, "initial commit")
                    return self.json({"url": f"{hub.url}/{name}", "name": name})
                case [_, _, "info", "lfs", "objects", "batch"]:
                    objects = json.loads(body)["objects"]
                    href = {
                        one["oid"]: {"upload": {"href": f"{hub.url}/lfs/{one['oid']}"}} for one in objects if one["oid"] not in hub.large
                    }
                    found = [one | ({"actions": href[one["oid"]]} if one["oid"] in href else {}) for one in objects]
                    return self.json({"transfer": "basic", "objects": found})
                case ["api", "models" | "datasets", user, name, *rest]:
                    return self.api(f"{user}/{name}", rest, body)
                case [user, name, "resolve", revision, *file]:
                    return self.file(f"{user}/{name}", revision, "/".join(file))
            return self.json({"error": "no such path"}, 404)

        def api(self, name: str, rest: list[str], body: bytes) -> None:
            repository = hub.repositories.get(name)
            if repository is None:
                return self.reply(404, b"{}", {"X-Error-Code": "RepoNotFound"})
            match rest:
                case [] | ["revision", _]:
                    if (files := repository.at(rest[1] if rest else "main")) is None:
                        return self.reply(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
                    found = {"id": name, "modelId": name, "private": repository.private}
                    found |= {"sha": repository.head if not rest or rest[1] == "main" else rest[1]}
                    found |= {"cardData": {"license": repository.licence}} if repository.licence else {}
                    return self.json(found | {"siblings": [{"rfilename": path} for path in files]})
                case ["tree", revision, *_]:
                    return self.json([self.entry(path, data) for path, data in (repository.at(revision) or {}).items()])
                case ["preupload", _]:
                    paths = [one["path"] for one in json.loads(body)["files"]]
                    modes = {path: "lfs" if path.endswith(LARGE) else "regular" for path in paths}
                    return self.json({"files": [{"path": path, "uploadMode": mode, "shouldIgnore": False} for path, mode in modes.items()]})
                case ["commit", _]:
                    return self.commit(name, repository, [json.loads(line) for line in body.splitlines()])
            return self.json({"error": "no such path"}, 404)

        def entry(self, path: str, data: bytes) -> dict[str, Any]:
            oid = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
            found: dict[str, Any] = {"type": "file", "path": path, "size": len(data), "oid": oid}
            if path.endswith(LARGE):
                found["lfs"] = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 130}
            return found

        def commit(self, name: str, repository: Repository, lines: list[dict[str, Any]]) -> None:
            header, *operations = lines
            if header["value"].get("parentCommit") not in (None, repository.head):
                return self.json({"error": "A commit has happened since. Please refresh and try again."}, 412)
            files = dict(repository.files)
            for one in operations:
                value = one["value"]
                assert one["key"] in ("file", "lfsFile"), "nothing is deleted"
                files[value["path"]] = base64.b64decode(value["content"]) if one["key"] == "file" else hub.large[value["oid"]]
            made = repository.commit(files, header["value"]["summary"])
            return self.json({"commitUrl": f"{hub.url}/{name}/commit/{made}", "commitOid": made, "success": True})

        def file(self, name: str, revision: str, path: str) -> None:
            repository = hub.repositories.get(name)
            files = repository.at(revision) if repository else None
            if repository is None or files is None or path not in files:
                code = "EntryNotFound" if files is not None else "RevisionNotFound" if repository else "RepoNotFound"
                return self.reply(404, b"", {"X-Error-Code": code})
            commit = repository.head if revision == "main" else revision
            return self.reply(200, files[path], {"ETag": f'"{hashlib.sha256(files[path]).hexdigest()}"', "X-Repo-Commit": commit})

        def json(self, value: Any, status: int = 200) -> None:
            self.reply(status, json.dumps(value).encode(), {"Content-Type": "application/json"})

        def reply(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
            self.send_response(status)
            for key, value in {**(headers or {}), "Content-Length": str(len(body))}.items():
                self.send_header(key, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def log_message(self, *arguments: object) -> None:
            """Quiet."""

    return Handler


@contextmanager
def running() -> Iterator[Hub]:
    """A hub for the length of a `with` statement."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(hub))
    hub.url = f"http://127.0.0.1:{server.server_port}"
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
