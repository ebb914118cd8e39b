"""A server on loopback that is shaped as the hub is for data sets: revisions, trees, files by ranges, gates, cut connections."""

import json
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import unquote

COMMIT, NEXT = "c" * 40, "d" * 40
"""Two commits of the data set; `main` names the first one until `move`."""


class HubServer(ThreadingHTTPServer):
    """Serves one data set, `me/papers`; `me/gated` is gated, `me/locked` asks who you are, all others are missing."""

    daemon_threads = True

    def __init__(self, files: dict[str, bytes], cuts: int = 0) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files, self.cuts = files, cuts
        self.asked: Counter[str] = Counter()
        self.bytes_sent = 0
        self.commits = [COMMIT]

    @property
    def main(self) -> str:
        """The commit that the branch names now."""
        return self.commits[-1]

    def move(self) -> None:
        """Let the branch name another commit, which holds the same files."""
        self.commits.append(NEXT)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def start(self) -> "HubServer":
        Thread(target=self.serve_forever, daemon=True).start()
        return self


class _Handler(BaseHTTPRequestHandler):
    server: HubServer
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.answer()

    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length", 0))
        self.answer(self.rfile.read(length))

    def answer(self, body: bytes = b"") -> None:
        path = unquote(self.path.split("?")[0]).strip("/")
        self.server.asked[f"{self.command} {path}"] += 1
        if "me/gated" in path:
            return self.reply(403, b"", {"X-Error-Code": "GatedRepo"})
        if "me/locked" in path:
            return self.reply(401, b"", {"X-Error-Code": "GatedRepo"})
        if "me/papers" not in path:
            return self.reply(404, b"", {"X-Error-Code": "RepoNotFound"})
        if path.startswith("api/"):
            return self.api(path, body)
        return self.file(path)

    def api(self, path: str, body: bytes) -> None:
        parts = path.removeprefix("api/datasets/me/papers").strip("/").split("/")
        if len(parts) > 1 and parts[1] not in (*self.server.commits, "main"):
            return self.reply(404, b"", {"X-Error-Code": "RevisionNotFound"})
        if parts[0] == "tree":
            below = "/".join(parts[2:])
            found = [_entry(name, data) for name, data in self.server.files.items() if name.startswith(below)]
            folders = sorted({name.split("/")[0] for name in self.server.files if "/" in name} if not below else ())
            listed = found if "recursive=true" in self.path.lower() or below else [item for item in found if "/" not in item["path"]]
            return self.json([{"type": "directory", "path": name, "oid": "0" * 40, "size": 0} for name in folders] + listed)
        if parts[0] == "paths-info":
            wanted = self.wanted(body)
            return self.json([_entry(name, data) for name, data in self.server.files.items() if name in wanted])
        commit = parts[1] if len(parts) > 1 and parts[1] in self.server.commits else self.server.main
        siblings = [{"rfilename": name} for name in self.server.files]
        return self.json({"id": "me/papers", "sha": commit, "siblings": siblings, "private": False, "gated": False, "tags": []})

    def wanted(self, body: bytes) -> list[str]:
        if "json" in self.headers.get("Content-Type", ""):
            return list(json.loads(body)["paths"])
        return [unquote(item.partition("=")[2]).replace("+", " ") for item in body.decode().split("&") if item.startswith("paths=")]

    def file(self, path: str) -> None:
        _, _, rest = path.partition("resolve/")
        revision, _, name = rest.partition("/")
        if revision not in self.server.commits:
            return self.reply(404, b"", {"X-Error-Code": "RevisionNotFound"})
        if name not in self.server.files:
            return self.reply(404, b"", {"X-Error-Code": "EntryNotFound"})
        data = self.server.files[name]
        headers = {"ETag": f'"{len(data)}"', "X-Repo-Commit": revision, "Accept-Ranges": "bytes"}
        asked = self.headers.get("Range")
        if not asked:
            return self.reply(200, data, headers)
        first, _, last = asked.removeprefix("bytes=").partition("-")
        start, end = int(first), min(int(last or len(data) - 1), len(data) - 1)
        return self.reply(206, data[start : end + 1], headers | {"Content-Range": f"bytes {start}-{end}/{len(data)}"})

    def json(self, value: object) -> None:
        self.reply(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def reply(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        cut = self.server.cuts > 0 and status == 206 and len(body) > 1
        if cut:
            self.server.cuts -= 1
            body = body[: len(body) // 2]
        self.wfile.write(body)
        self.server.bytes_sent += len(body)
        if cut:
            self.close_connection = True
            self.wfile.flush()
            self.connection.close()

    def log_message(self, *arguments: object) -> None:
        """Quiet."""


def _entry(name: str, data: bytes) -> dict[str, object]:
    return {"type": "file", "path": name, "size": len(data), "oid": "0" * 40}
