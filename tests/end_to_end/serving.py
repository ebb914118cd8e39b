"""A running `engine serve`, as tests start and end it."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from openai import OpenAI

from engine.build.driver import dvc_environment

_PAUSE = 0.05


class Server:
    """A server in a process of its own."""

    def __init__(self, root: Path, log: Path, *arguments: str, **environment: str) -> None:
        self.log = log
        # Started cold: a warm Python does not pass signals on.
        command = [sys.executable, "-m", "engine", "--workspace", str(root), "serve", *arguments]
        environment = dvc_environment() | {"PYTHONUNBUFFERED": "1"} | environment
        with log.open("wb") as file:
            self.process = subprocess.Popen(command, cwd=log.parent, env=environment, stderr=file, stdout=file, process_group=0)

    def until(self, text: str) -> str:
        """The rest of the line after TEXT, once the server has said it."""
        with self.log.open(encoding="utf-8") as file:
            said = ""
            while text not in said or "\n" not in said.partition(text)[2]:
                line = file.readline()
                said += line
                time.sleep(0 if line else _PAUSE)
                assert self.process.poll() is None or text in said, said + file.read()
        return said.partition(text)[2].partition("\n")[0].strip()

    @property
    def url(self) -> str:
        return self.until("serving on ")

    def client(self, key: str = "none") -> OpenAI:
        return OpenAI(base_url=self.url, api_key=key, max_retries=0, timeout=300)

    def health(self) -> dict[str, Any]:
        with urllib.request.urlopen(self.url.removesuffix("/v1") + "/health", timeout=30) as response:
            return json.load(response)

    def until_in_flight(self, requests: int) -> None:
        while self.health()["in_flight"] < requests:
            time.sleep(_PAUSE)

    def interrupt(self) -> None:
        """^C, as a terminal sends it: to the whole group."""
        os.killpg(self.process.pid, signal.SIGINT)


@contextmanager
def serving(root: Path, log: Path, *arguments: str, **environment: str) -> Iterator[Server]:
    """A server on a free port, for the length of a `with` statement."""
    server = Server(root, log, "--port", "0", *arguments, **environment)
    try:
        yield server
    finally:
        server.process.kill()
        server.process.wait()
