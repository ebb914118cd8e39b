"""`engine report --serve` as a process: what runs is on the page, which says when it has changed; a port in use, other hosts, ^C."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import numpy as np
import pytest
from safetensors.numpy import save_file

from tests.support.commands import engine
from tests.support.toys import toy

ROOT = Path(__file__).parents[3]


pytestmark = pytest.mark.slow


def get(address: str, host: str | None = None) -> str:
    with urlopen(Request(address, headers={"Host": host} if host else {}), timeout=60) as answer:
        return answer.read().decode()


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
