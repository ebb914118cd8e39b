"""An OpenAI-shaped server on loopback that can fail in every way: for tests and benchmarks, in a process of its own.

    python -m tests.stages.generate.chat_server [--delay SECONDS]      prints its port, serves until its stdin closes

What it does with a request stands in the last message: `[500*2]` fails twice with status 500 and then answers. See FAULTS.
It keeps a journal of all it received and of all it answered in full, and tells it under /journal.
"""

import argparse
import asyncio
import json
import os
import re
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[3]
_MARK = re.compile(r"\[([a-z0-9-]+)(?:\*(\d+))?\]")
_ALWAYS = 1_000_000

Handler = Callable[["Connection", dict[str, Any]], None]


def completion(text: str | None, finish_reason: str = "stop", refusal: str | None = None, prompt: str = "") -> bytes:
    """The body of an ordinary answer; a token is four characters."""
    message = {"role": "assistant", "content": text, "refusal": refusal}
    used = {"prompt_tokens": max(1, len(prompt) // 4), "completion_tokens": max(1, len(text or "") // 4)}
    choice = {"index": 0, "message": message, "finish_reason": finish_reason}
    return json.dumps(
        {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice], "usage": used}
    ).encode()


def question(body: dict[str, Any]) -> str:
    """The first thing that the user says."""
    return next(str(message["content"]) for message in body["messages"] if message["role"] == "user")


def answer_to(body: dict[str, Any]) -> str:
    """What the server says to a request: JSON where a schema asks for it, else the question in capitals."""
    prompt = question(body)
    if "response_format" in body:
        said = _MARK.sub("", prompt).strip().upper()
        properties = body["response_format"]["json_schema"]["schema"]["properties"]
        return json.dumps({name: _value(schema, said) for name, schema in properties.items()})
    return _MARK.sub("", prompt).strip().upper() or "YES"


def _value(schema: dict[str, Any], said: str) -> str | int:
    """SAID, or one of the numbers that the schema allows, decided by it."""
    allowed: list[int] = schema.get("enum", [])
    return allowed[sum(said.encode()) % len(allowed)] if allowed else said


def _fail(status: int, headers: str = "", code: str | None = None) -> Handler:
    def handler(connection: "Connection", body: dict[str, Any]) -> None:
        error = {"error": {"message": f"failed as asked; your key is {connection.authorization}", "code": code, "type": None}}
        connection.respond(status, json.dumps(error).encode(), headers)

    return handler


def _say(**parts: Any) -> Handler:
    return lambda connection, body: connection.respond(200, completion(**parts, prompt=str(body["messages"])), answered=body)


def _half(connection: "Connection", body: dict[str, Any]) -> None:
    whole = completion("half")
    connection.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(whole) + whole[: len(whole) // 2])
    connection.transport.close()


def _drip(connection: "Connection", body: dict[str, Any]) -> None:
    whole = completion("slow")
    connection.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(whole))
    for number in range(len(whole)):
        asyncio.get_running_loop().call_later(0.2 * number, connection.write, whole[number : number + 1])


FAULTS: dict[str, Handler] = {
    "500": _fail(500),
    "503": _fail(503),
    "429": _fail(429),
    "429-after": _fail(429, "retry-after: 1\r\n"),
    "quota": _fail(429, code="insufficient_quota"),
    "400": _fail(400),
    "401": _fail(401),
    "404": _fail(404),
    "301": _fail(301, "location: http://elsewhere.example/v1\r\n"),
    "filtered": _fail(400, code="content_filter"),
    "timeout": lambda connection, body: None,
    "reset": lambda connection, body: connection.transport.abort(),
    "half": _half,
    "drip": _drip,
    "garbage": lambda connection, body: connection.respond(200, b'{"choices": [{"mess'),
    "html": lambda connection, body: connection.respond(200, b"<html>proxy says hello</html>"),
    "no-choices": lambda connection, body: connection.respond(200, b'{"choices": []}'),
    "empty": _say(text=""),
    "null": _say(text=None),
    "cut": _say(text="cut off in the mid", finish_reason="length"),
    "refusal": _say(text=None, refusal="I must not"),
    "schema": _say(text='{"headline": "wrong"}'),
    "prose": _say(text="here is your JSON"),
}


@dataclass
class State:
    """What the server remembers."""

    delay: float = 0.0
    per_window: int | None = None
    window: float = 1.0
    batch_delay: float = 0.0
    received: list[tuple[float, str, int]] = field(default_factory=list)
    """Time, question and tokens of every chat request that arrived."""
    answered: list[str] = field(default_factory=list)
    keys: set[str] = field(default_factory=set)
    seen: Counter[str] = field(default_factory=Counter)
    scripted: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    """By question: the responses to it, one after the other and the last for ever, each with status, headers and the text of the body."""
    files: dict[str, bytes] = field(default_factory=dict)
    halves: int = 0
    """So many files of results come out cut in half."""
    batches: dict[str, dict[str, Any]] = field(default_factory=dict)
    in_flight: int = 0
    most_in_flight: int = 0

    def too_many(self) -> bool:
        since = time.monotonic() - self.window
        return self.per_window is not None and sum(when > since for when, _, _ in self.received[-self.per_window - 1 :]) > self.per_window


class Connection(asyncio.Protocol):
    """HTTP/1.1 with a stated length, and nothing else of it."""

    def __init__(self, state: State) -> None:
        self.state, self.buffer, self.authorization = state, b"", ""
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def write(self, data: bytes) -> None:
        if not self.transport.is_closing():
            self.transport.write(data)

    def respond(self, status: int, body: bytes, headers: str = "", answered: dict[str, Any] | None = None) -> None:
        self.write(f"HTTP/1.1 {status} x\r\ncontent-type: application/json\r\n{headers}content-length: {len(body)}\r\n\r\n".encode() + body)
        if answered is not None:
            self.state.answered.append(str(answered["messages"][-1]["content"]))

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while (end := self.buffer.find(b"\r\n\r\n")) >= 0:
            head = self.buffer[:end].decode("latin-1")
            fields = dict(line.lower().split(": ", 1) for line in head.split("\r\n")[1:])
            size = int(fields.get("content-length", 0))
            if len(self.buffer) < end + 4 + size:
                return
            body, self.buffer = self.buffer[end + 4 : end + 4 + size], self.buffer[end + 4 + size :]
            found = re.search(r"(?i)^authorization: (.*)$", head, re.MULTILINE)
            self.authorization = found[1].strip() if found else ""
            method, path, _ = head.split(" ", 2)
            self.route(method, path, body)

    def route(self, method: str, path: str, body: bytes) -> None:
        if path.endswith("/chat/completions"):
            self.chat(json.loads(body))
        elif path == "/journal":
            self.respond(200, json.dumps(journal(self.state)).encode())
        elif path == "/counts":
            self.respond(200, json.dumps({"received": len(self.state.received), "answered": len(self.state.answered)}).encode())
        elif path == "/set":
            for name, value in json.loads(body).items():
                setattr(self.state, name, Counter(value) if name == "seen" else value)
            self.respond(200, b"{}")
        else:
            self.respond(*files_and_batches(self.state, method, path, body))

    def chat(self, body: dict[str, Any]) -> None:
        prompt = str(body["messages"][-1]["content"])
        tokens = max(1, len(prompt) // 4) + max(1, len(answer_to(body)) // 4)
        self.state.received.append((time.monotonic(), prompt, tokens))
        self.state.keys.add(self.authorization)
        self.state.in_flight += 1
        self.state.most_in_flight = max(self.state.most_in_flight, self.state.in_flight)
        asyncio.get_running_loop().call_later(self.state.delay, self.serve, body)

    def serve(self, body: dict[str, Any]) -> None:
        self.state.in_flight -= 1
        prompt = question(body)
        self.state.seen[prompt] += 1
        if script := self.state.scripted.get(prompt):
            step = script[min(self.state.seen[prompt], len(script)) - 1]
            headers = "".join(f"{name}: {value}\r\n" for name, value in step.get("headers", {}).items())
            self.respond(step.get("status", 200), step["body"].encode("utf-8", "surrogatepass"), headers, body)
        elif self.state.too_many():
            FAULTS["429"](self, body)
        elif (mark := _MARK.search(prompt)) and self.state.seen[prompt] <= int(mark[2] or _ALWAYS):
            FAULTS[mark[1]](self, body)
        else:
            self.respond(200, completion(answer_to(body), prompt=prompt), answered=body)


def journal(state: State) -> dict[str, Any]:
    return {
        "received": state.received,
        "answered": state.answered,
        "keys": sorted(state.keys),
        "most_in_flight": state.most_in_flight,
        "batches": len(state.batches),
    }


def files_and_batches(state: State, method: str, path: str, body: bytes) -> tuple[int, bytes]:
    """The batch API: files in, files out, and batches that are done after a while."""
    parts = path.partition("?")[0].strip("/").split("/")[1:]
    if method == "POST" and parts == ["files"]:
        name = f"file-{len(state.files)}"
        state.files[name] = body.split(b'name="file"', 1)[1].split(b"\r\n\r\n", 1)[1].split(b"\r\n--", 1)[0]
        return 200, json.dumps(
            {"id": name, "object": "file", "bytes": 1, "created_at": 1, "filename": "x", "purpose": "batch", "status": "processed"}
        ).encode()
    if method == "GET" and parts[0] == "files":
        content = state.files[parts[1]]
        state.halves, half = max(0, state.halves - 1), bool(state.halves)
        return 200, content[: len(content) // 2] if half else content
    if method == "POST" and parts == ["batches"]:
        return 200, json.dumps(_start_batch(state, json.loads(body))).encode()
    if method == "GET" and parts == ["batches"]:
        return 200, json.dumps({"object": "list", "data": [_batch(state, name) for name in state.batches], "has_more": False}).encode()
    if method == "GET" and parts[0] == "batches" and parts[1] in state.batches:
        return 200, json.dumps(_batch(state, parts[1])).encode()
    return 404, b'{"error": {"message": "no such thing"}}'


def _start_batch(state: State, asked: dict[str, Any]) -> dict[str, Any]:
    name = f"batch-{len(state.batches)}"
    state.batches[name] = {
        "id": name,
        "object": "batch",
        "endpoint": asked["endpoint"],
        "input_file_id": asked["input_file_id"],
        "completion_window": asked["completion_window"],
        "created_at": 1,
        "metadata": asked.get("metadata"),
        "status": "in_progress",
        "done_at": time.monotonic() + state.batch_delay,
    }
    return _batch(state, name)


def _batch(state: State, name: str) -> dict[str, Any]:
    batch = state.batches[name]
    if batch["status"] == "in_progress" and time.monotonic() >= batch["done_at"]:
        _finish_batch(state, batch)
    return {key: value for key, value in batch.items() if key != "done_at"}


def _finish_batch(state: State, batch: dict[str, Any]) -> None:
    out, errors = [], []
    for line in state.files[batch["input_file_id"]].splitlines():
        item = json.loads(line)
        prompt = str(item["body"]["messages"][-1]["content"])
        state.received.append((time.monotonic(), prompt, 1))
        state.seen[prompt] += 1
        if script := state.scripted.get(prompt):
            step = script[min(state.seen[prompt], len(script)) - 1]
            line = step["line"] if "line" in step else _line(item, step)
            out.append(line if isinstance(line, str) else line | {"custom_id": item["custom_id"]})
        elif (mark := _MARK.search(prompt)) and mark[1] == "500" and state.seen[prompt] <= int(mark[2] or _ALWAYS):
            errors.append(
                {"custom_id": item["custom_id"], "response": {"status_code": 500, "body": {"error": {"message": "no"}}}, "error": None}
            )
        else:
            state.answered.append(prompt)
            whole = json.loads(completion(answer_to(item["body"]), prompt=prompt))
            out.append({"custom_id": item["custom_id"], "response": {"status_code": 200, "body": whole}, "error": None})
    for kind, lines in (("output_file_id", out), ("error_file_id", errors)):
        if lines:
            batch[kind] = f"file-{len(state.files)}"
            # In another order, as the documentation says that it may be.
            state.files[batch[kind]] = "".join(
                (line if isinstance(line, str) else json.dumps(line)) + "\n" for line in reversed(lines)
            ).encode()
    batch["status"] = "completed"


def _line(item: dict[str, Any], step: dict[str, Any]) -> dict[str, Any]:
    """A line of a batch's results for a scripted response; a body that is no JSON stands there as text."""
    try:
        body = json.loads(step["body"])
    except ValueError:
        body = step["body"]
    return {
        "id": "batch_req_1",
        "custom_id": item["custom_id"],
        "response": {"status_code": step.get("status", 200), "body": body},
        "error": None,
    }


async def serve(delay: float) -> None:
    """Serve on a free port, which is printed, until stdin closes."""
    loop, state = asyncio.get_running_loop(), State(delay=delay)
    server = await loop.create_server(lambda: Connection(state), "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)


class Server:
    """A running server, as tests see it."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}/v1"
        self._origin = f"http://127.0.0.1:{port}"

    def _call(self, path: str, data: bytes | None = None) -> Any:
        with urllib.request.urlopen(urllib.request.Request(self._origin + path, data), timeout=30) as response:
            return json.load(response)

    def set(self, **values: Any) -> None:
        """Change the server's State."""
        self._call("/set", json.dumps(values).encode())

    def journal(self) -> dict[str, Any]:
        """Everything that it received and answered."""
        return self._call("/journal")

    def counts(self) -> dict[str, int]:
        """How many requests arrived, and how many were answered in full."""
        return self._call("/counts")

    def received(self) -> list[str]:
        """The questions that arrived, in order."""
        return [prompt for _, prompt, _ in self.journal()["received"]]


@contextmanager
def running(delay: float = 0.0) -> Iterator[Server]:
    """A server in a process of its own."""
    command = [sys.executable, "-m", "tests.stages.generate.chat_server", "--delay", str(delay)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin and process.stdout
    try:
        yield Server(int(process.stdout.readline()))
    finally:
        process.stdin.close()
        process.kill()
        process.wait()
        process.stdout.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--delay", type=float, default=0.0)
    asyncio.run(serve(parser.parse_args().delay))
