"""`engine report --serve` as a process: what runs is on the page, which says when it has changed; a port in use, other hosts, ^C."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import numpy as np
import pytest
from safetensors.numpy import save_file

from engine.report.live import running, stamp
from engine.report.serving import Page, Server, handler
from tests.support.commands import engine
from tests.support.toys import toy

ROOT = Path(__file__).parents[3]


def get(address: str, host: str | None = None) -> str:
    with urlopen(Request(address, headers={"Host": host} if host else {}), timeout=60) as answer:
        return answer.read().decode()


@pytest.mark.slow
def test_a_build_is_watched_until_the_server_is_interrupted(tmp_path: Path):
    (tmp_path / "specs").mkdir()
    (tmp_path / "specs/toy.toml").write_text(toy())
    (tmp_path / "a.jsonl").write_text('{"word": "x"}\n' * 9)
    steps, scratch = tmp_path / ".dvc/tmp/adapterbuild", tmp_path / "artifacts/scratch/train-toy-0123456789ab/checkpoints"
    steps.mkdir(parents=True)
    (steps / "train-toy.lock").write_text(str(os.getpid()))
    (steps / "train-toy.log").write_text("train: 30/60 steps, loss 1.5000, learning rate 1.00e-03, 90 tokens/s, 0:10 left\n")
    (steps / "mix-toy.lock").write_text("not a process")
    scratch.mkdir(parents=True)
    state = json.dumps({"progress": {"step": 2, "curve": [[4.0, 0.1, 1.0], [3.0, 0.1, 1.0]]}})
    save_file({"w": np.zeros(1)}, scratch / "step-00000002.safetensors", {"state": state})

    command = [sys.executable, "-m", "engine", "--workspace", str(tmp_path), "report", "--serve", "--port", "0"]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as server:
        try:
            (address, port) = re.search(r"(http://127.0.0.1:(\d+)/)", server.stderr.readline()).groups()
            page = get(address)
            assert re.search(r"1 of \d steps run", page) and "loss 1.5000" in page and "Training loss so far" in page
            stamp = re.search('data-stamp="(.*?)"', page)[1]
            (tmp_path / "specs/toy.toml").write_text("[experiment")
            while get(f"{address}stamp") == stamp:
                time.sleep(0.2)
            assert "specs/toy.toml:1" in get(address), "specs with mistakes are said, and the server goes on"
            for wrong, host, status in ((address, "example.org:80", 403), (f"{address}report.md", None, 404)):
                with pytest.raises(HTTPError) as refused:
                    get(wrong, host)
                assert refused.value.code == status
            (tmp_path / "specs/toy.toml").write_text(toy())
            taken = engine(tmp_path, "report", "--serve", "--port", port)
            assert taken.returncode == 1 and f"port {port} of 127.0.0.1 is in use\n  hint: --port 0" in taken.stderr
        finally:
            server.send_signal(signal.SIGINT)
        assert server.stderr.read().strip() == "ended" and server.wait() == 0


@contextmanager
def served(make: Callable[[str], str], stamped: Callable[[], str] = lambda: "1") -> Iterator[int]:
    """The port at which a page is served."""
    with Server(("127.0.0.1", 0), handler(Page(make, stamped))) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


def test_a_browser_at_port_80_names_no_port():
    with served(lambda now: "<p>page") as port:
        for host in ("127.0.0.1", "localhost", f"localhost:{port}"):
            assert get(f"http://127.0.0.1:{port}/", host) == "<p>page"
        for host in ("example.org", "localhost.example.org", "example.org:80"):
            with pytest.raises(HTTPError, match="403"):
                get(f"http://127.0.0.1:{port}/", host)


def test_a_page_that_cannot_be_made_says_why_and_is_tried_again(capfd: pytest.CaptureFixture[str]):
    found = iter([FileNotFoundError("a <file> that was moved")])

    def make(now: str) -> str:
        for error in found:
            raise error
        return f"made for {now}"

    with served(make) as port:
        with pytest.raises(HTTPError) as refused:
            get(f"http://127.0.0.1:{port}/")
        page = refused.value.read().decode()
        assert refused.value.code == 500 and "a &lt;file&gt; that was moved" in page
        shown = re.search('data-stamp="(.*?)"', page)[1]
        while get(f"http://127.0.0.1:{port}/stamp") == shown:
            time.sleep(0.01)
        assert get(f"http://127.0.0.1:{port}/") == "made for 1"
    assert "Traceback" in capfd.readouterr().err


def test_a_reader_who_has_gone_before_the_page_was_there_is_no_error(capfd: pytest.CaptureFixture[str]):
    asked, gone = Event(), Event()

    def make(now: str) -> str:
        asked.set()
        gone.wait(10)
        return "long " * 2**20

    with served(make) as port:
        with socket.create_connection(("127.0.0.1", port)) as reader:
            reader.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            asked.wait(10)
            reader.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        gone.set()
        assert get(f"http://127.0.0.1:{port}/stamp") == "1"
    assert capfd.readouterr().err == ""


def test_a_step_runs_while_the_process_that_took_its_lock_does(tmp_path: Path):
    lock = tmp_path / ".dvc/tmp/adapterbuild/mix-toy.lock"
    lock.parent.mkdir(parents=True)
    lock.write_text(str(os.getpid()))
    assert [one.name for one in running(tmp_path, ["mix-toy"])] == ["mix-toy"]
    os.utime(lock, (time.time() - 10 * 86400,) * 2)
    assert running(tmp_path, ["mix-toy"]) == [], "this process is younger than the lock, so another had its id"


def test_an_edit_of_what_specs_are_made_of_is_seen_wherever_it_lies(tmp_path: Path):
    part, other = tmp_path / "specs/parts/deep/model.toml", tmp_path / "elsewhere.toml"
    part.parent.mkdir(parents=True)
    seen = set()
    for file in (part, other):
        for text in ("a = 1", "a = 2"):
            file.write_text(text)
            os.utime(file, ns=(len(seen) * 10**9,) * 2)
            seen.add(stamp(tmp_path, [other]))
    assert len(seen) == 4


def test_a_page_whose_server_answers_again_has_its_title_again():
    """In JavaScript itself, as a browser runs it."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("needs node")
    script = """
    const answers = [null, "1", "2"], told = []
    globalThis.document = {currentScript: {dataset: {stamp: "1"}}, title: "Report", querySelector: () => null}
    globalThis.location = {reload: () => console.log(told.join("|"))}
    globalThis.fetch = async () => {
      told.push(document.title)
      const text = answers.shift()
      if (text === null) throw new Error("away")
      return {ok: true, text: async () => text}
    }
    globalThis.setTimeout = next => setImmediate(next);
    """ + (ROOT / "engine/report/reload.js").read_text()
    assert subprocess.run([node, "-e", script], capture_output=True, text=True, check=True).stdout == "Report|ended: Report|Report\n"
