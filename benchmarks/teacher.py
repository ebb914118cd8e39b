"""The `chat` teacher under kills and at full speed: what is paid for twice, and how close it gets to an ideal rate.

    python benchmarks/teacher.py [--quick] [--json] [--rows-streamed N]

The server is the tests' own, a separate process that answers after a fixed time. What is killed is the real step, in a workspace. At last
the real step streams N rows whose answers are kept, and its peak of memory is compared with that of a few rows.
"""

import sys

if __name__ == "__main__":
    # Run as a script: this folder itself must not be searched, where a benchmark of tokenize would stand before Python's own module.
    sys.path[0] = __file__.rpartition("/benchmarks/")[0] or "."

import argparse
import asyncio
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import tempfile
import time
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.common import ROOT, machine, table
from engine.core.errors import Location
from stages.generate.asking import limits
from stages.generate.asking.cache import Answers, answers_path
from stages.generate.asking.reply import Reply
from stages.generate.asking.request import opening
from stages.generate.asking.teach import rules
from stages.generate.question import Question, Tally
from stages.generate.teachers.chat import Chat
from stages.process.job import Job
from tests.stages.generate.chat_server import Server, running

IN_FLIGHT, DELAY = 64, 0.05
IDEAL = IN_FLIGHT / DELAY
LIMITED, WINDOW = 1_200, 6.0  # requests a window, and the seconds that stand for a minute
STREAMED, FEW = 1_000_000, 20
NOWHERE = "http://127.0.0.1:9/v1"  # the discard port: whoever asked would be refused
STEP = "generate-words"
SPEC = """
[experiment]
name = "words"
[model]
name = "tiny"
architecture = {{ kind = "llama", hidden_size = 16, layers = 1, heads = 2, max_length = 128 }}
[tasks.words]
source = {{ kind = "jsonl", path = "rows.jsonl" }}
prompts = {prompts}
teacher = {{ kind = "chat", model = "m", base_url = "{url}", api_key_env = "TEACHER_KEY", in_flight = 16 }}
[mixture]
tasks = ["words"]
[training]
method = "full"
"""


PROMPTS = ("Say {{ word }}", "Repeat {{ word }}")
PEAK = """
import runpy
from pathlib import Path
try:
    runpy.run_module("stages", run_name="__main__", alter_sys=True)
finally:
    print(next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:")).split()[1])
"""


def workspace(folder: Path, url: str, rows: int, prompts: Sequence[str] = PROMPTS) -> None:
    """A workspace with one chat task, ready for `python -m stages`."""
    (folder / "specs").mkdir(parents=True)
    (folder / "specs" / "words.toml").write_text(SPEC.format(url=url, prompts=json.dumps(prompts)))
    (folder / "rows.jsonl").write_text("".join(json.dumps({"word": f"word {number}"}) + "\n" for number in range(rows)))
    for command in (["git", "init", "--quiet"], [sys.executable, "-m", "engine", "compile"], [sys.executable, "-m", "engine", "resolve"]):
        subprocess.run(command, cwd=folder, env=environment(), check=True, capture_output=True)


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(ROOT), "TEACHER_KEY": "sk-benchmark-0123456789"}


def start(folder: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "stages", "generate", STEP]
    return subprocess.Popen(command, cwd=folder, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def finish(folder: Path) -> bytes:
    """Run the step to its end; the bytes that it makes."""
    process = start(folder)
    _, errors = process.communicate()
    if process.returncode:
        raise RuntimeError(errors.decode())
    return (folder / "artifacts" / STEP / "rows.jsonl").read_bytes()


def stored(folder: Path) -> set[bytes]:
    """The addresses of all answers that are on disk now."""
    path = answers_path(folder)
    if not path.exists():
        return set()
    with sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True) as connection:
        return {key for (key,) in connection.execute("SELECT key FROM answers")}


def crash(folder: Path, server: Server, rows: int, kills: int, seed: int = 0) -> dict[str, Any]:
    """Kill the step KILLS times at random, let it finish, and compare what it asked and made with a run that nobody disturbed."""
    draw, moments = random.Random(seed), []
    killed = folder / "killed"
    workspace(killed, server.url, rows)
    for _ in range(kills):
        process = start(killed)
        at = server.counts()["received"] + draw.randint(1, max(1, rows // (kills + 2)))
        while server.counts()["received"] < at and process.poll() is None:
            time.sleep(0.001)
        time.sleep(draw.uniform(0.0, 0.03))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        moments.append((server.counts()["received"], stored(killed), process.returncode == -signal.SIGKILL))
    made = finish(killed)
    received = server.received()
    undisturbed = folder / "undisturbed"
    workspace(undisturbed, server.url, rows)
    shape = rules(Chat(model="m", base_url=server.url)).shape
    keys = [shape.request(opening("", prompt)).key for prompt in received]
    # A request counts as repeated where its answer was on disk when the step was killed, and it arrived once more after that.
    repeated = {place for since, known, _ in moments for place in range(since, len(keys)) if keys[place] in known}
    return {
        "requests": len(received),
        "repeated_requests": len(repeated),
        "lost_in_flight": len(received) - len(set(received)) - len(repeated),
        "identical": made == finish(undisturbed),
        "kills": sum(hit for *_, hit in moments),
        "rows": rows,
    }


def ask(teacher: Chat, count: int, word: str) -> float:
    """Seconds that COUNT questions take."""
    questions = (Question("", f"{word} {number}", {}, Location("rows.jsonl", number)) for number in range(count))
    begun = time.perf_counter()
    answered = sum(1 for answer in teacher.answers(questions, Job(word, {}, Path(), None, Path()), Tally()) if answer.text)
    assert answered == count
    return time.perf_counter() - begun


async def bare(server: Server, count: int) -> float:
    """Seconds that COUNT requests take over bare sockets: the most that this machine gives with this server."""
    host, port = server.url.split("/")[2].split(":")
    numbers = iter(range(count))

    async def worker() -> None:
        reader, writer = await asyncio.open_connection(host, int(port))
        for number in numbers:
            body = json.dumps({"model": "m", "messages": [{"role": "user", "content": f"bare {number}"}]}).encode()
            writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
            head = await reader.readuntil(b"\r\n\r\n")
            json.loads(await reader.readexactly(int(head.rsplit(b": ", 1)[1])))
        writer.close()

    begun = time.perf_counter()
    await asyncio.gather(*(worker() for _ in range(IN_FLIGHT)))
    return time.perf_counter() - begun


def throughput(server: Server, count: int) -> dict[str, float]:
    """The rate without a limit, as shares of the arithmetic ideal and of the bare client's rate, which ran just before and just after."""
    teacher = Chat(model="m", base_url=server.url, in_flight=IN_FLIGHT)
    before = asyncio.run(bare(server, count // 2))
    processor = time.process_time()
    taken = ask(teacher, count, "fast")
    processor = time.process_time() - processor
    after = asyncio.run(bare(server, count // 2))
    rate, bare_rate = count / taken, count / (before + after)
    return {
        "processor_ms": processor / count * 1000,
        "rate": rate,
        "bare_rate": bare_rate,
        "efficiency": rate / IDEAL,
        "efficiency_to_bare": rate / bare_rate,
    }


def limited(server: Server, windows: float) -> dict[str, float]:
    """The most requests that arrived in any window, and the mean rate, as shares of the limit."""
    server.set(received=[])
    count = int(LIMITED * windows)
    before, limits.MINUTE = limits.MINUTE, WINDOW
    try:
        ask(Chat(model="m", base_url=server.url, in_flight=IN_FLIGHT, requests_per_minute=LIMITED), count, "limited")
    finally:
        limits.MINUTE = before
    times = [when for when, *_ in server.journal()["received"]]
    most = max(bisect_left(times, when + WINDOW) - place for place, when in enumerate(times))
    return {"peak_rate": most / LIMITED, "mean_rate": (count - 1) / (times[-1] - times[0]) * WINDOW / LIMITED}


def streamed(folder: Path, rows: int) -> dict[str, float]:
    """Rows a second where every answer is kept, and the peak of memory (VmHWM of proc(5), MB) of so many rows over that of a few."""
    peaks = []
    for count in (FEW, rows):
        place = folder / f"streamed-{count}"
        workspace(place, NOWHERE, count, PROMPTS[:1])
        keep_answers(place, count)
        command, begun = [sys.executable, "-c", PEAK, "generate", STEP], time.perf_counter()
        # Its progress goes to stderr, line by line.
        said = subprocess.check_output(command, cwd=place, env=environment(), stderr=subprocess.DEVNULL, text=True)
        seconds = time.perf_counter() - begun
        peaks.append(int(said.split()[-1]) / 1024)
        with (place / "artifacts" / STEP / "rows.jsonl").open("rb") as file:
            assert sum(1 for _ in file) == count
    return {"rows_streamed": rows, "streamed_base": peaks[0], "streamed_above_base": peaks[1] - peaks[0], "streamed_rate": rows / seconds}


def keep_answers(folder: Path, rows: int) -> None:
    """Keep an answer to every question of the workspace in FOLDER, as if each had been paid for."""
    shape = rules(Chat(model="m", base_url=NOWHERE)).shape
    with Answers(answers_path(folder)) as answers, answers.at_once():
        for number in range(rows):
            request = shape.request(opening("", f"Say word {number}"))
            answers.keep(request, Reply(f"WORD {number}", None, "stop", 4, 2), STEP)


@contextmanager
def inside(folder: Path) -> Iterator[None]:
    """Work in FOLDER, where the answers then lie."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def measure(quick: bool, rows: int) -> dict[str, Any]:
    folder = Path(tempfile.mkdtemp(prefix="teacher-")).resolve()
    try:
        with running(0.02) as server:
            result = crash(folder, server, 150 if quick else 3_000, 3 if quick else 20)
        (folder / "speed").mkdir()
        with running(DELAY) as server, inside(folder / "speed"):
            result |= throughput(server, 1_500 if quick else 15_000)
            result |= limited(server, 1.5 if quick else 5.0)
        result |= streamed(folder, rows)
    finally:
        shutil.rmtree(folder)
    return {key: round(value, 4) if isinstance(value, float) else value for key, value in result.items()} | {"machine": machine()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few rows, few kills: whether it works, no numbers to publish")
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line")
    parser.add_argument("--rows-streamed", type=int, metavar="N", help=f"rows whose answers are kept; none given: {STREAMED:,}")
    arguments = parser.parse_args()
    result = measure(arguments.quick, arguments.rows_streamed or (2_000 if arguments.quick else STREAMED))
    print(table(["measured", "value"], [[key, str(value)] for key, value in result.items()]))
    if arguments.json:
        print(json.dumps(result))


if __name__ == "__main__":
    main()
