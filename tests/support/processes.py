"""A cluster that is processes of this machine, as a plug-in: it kills, and remembers what was submitted."""

import contextlib
import json
import os
import signal
import subprocess
import time
from pathlib import Path

from engine.build.executors.cluster import Full, JobEnd
from engine.core.errors import UserError

ENDED: dict[int, int] = {}
"""The exit status of each child that has ended."""
SITE = "site"
"""The folder, inside the cluster's, that puts the plug-in on a Python's path."""
MOMENTS = (".restored", "/artifact/", "/files/md5/", "/runs/")
"""What the path holds at whose writing the first, second, ... attempt at a job dies: an input, an output, an object in the store, the
record."""
KILLER = """\
import os, sys

moment = os.environ.get("DIES_AT")
job = os.getsid(0)  # the worker leads a session, of which its step is

def watch(event, arguments):
    renamed = event == "os.rename"
    written = event == "open" and isinstance(arguments[2], int) and arguments[2] & os.O_ACCMODE != os.O_RDONLY
    if (renamed or written) and moment in str(arguments[0]) and (moment != "/runs/" or os.getpid() == job):
        os.killpg(job, 9)

if moment:
    sys.addaudithook(watch)
"""


def install(folder: Path) -> Path:
    """Make the plug-in known to a Python whose path has the folder that is returned."""
    site = folder / SITE
    information = site / "processes-1.dist-info"
    information.mkdir(parents=True)
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: processes\nVersion: 1\n")
    (information / "entry_points.txt").write_text("[adapterbuild.executors]\nprocesses = processes_plugin:Processes\n")
    (site / "processes_plugin.py").write_text(Path(__file__).read_text())
    (site / "sitecustomize.py").write_text(KILLER)
    return site


class Processes:
    """Each job is a process in a session of its own, which outlives the build; `killed`: an attempt at a job dies at each of `MOMENTS`;
    `explains`: it says how a job has ended; `room`: it takes so many jobs at once; `refused`: it refuses jobs with this in their label."""

    name = "processes"

    def __init__(self, settings):
        self.folder = Path(settings["folder"])
        self.killed = settings.get("killed", False)
        self.environment = os.environ | settings.get("environment", {})
        self.first = settings.get("first", [])  # words before the command of the first attempt at each job
        self.room, self.refused = settings.get("room"), settings.get("refused")
        self.explains = settings.get("explains", False)
        (self.folder / "jobs").mkdir(parents=True, exist_ok=True)

    def refusal(self, needs):
        return "no node has 64 cores" if needs.cores > 64 else None

    def submit(self, label, command, needs):
        earlier = [each for each in submissions(self.folder) if each["label"] == label]
        if self.refused and self.refused in label:
            raise UserError("invalid account")
        if self.room and sum(alive(each["pid"]) for each in submissions(self.folder)) >= self.room:
            raise Full("job submit limit")
        words = [*(self.first if not earlier else []), *command]
        moment = {"DIES_AT": MOMENTS[len(earlier)]} if self.killed and len(earlier) < len(MOMENTS) else {}
        with (self.folder / f"{label}.log").open("ab") as log:
            process = subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self.environment | moment, start_new_session=True
            )
        with (self.folder / "submitted.jsonl").open("a") as file:
            file.write(json.dumps({"label": label, "pid": process.pid, "needs": needs.__dict__}) + "\n")
        return str(process.pid)

    def states(self, ids):
        return {number: f"running as process {number}" for number in ids if alive(int(number))}

    def cancel(self, ids):
        for number in ids:
            if alive(int(number)):
                os.killpg(int(number), signal.SIGTERM)

    def explain(self, number):
        code = ENDED.get(int(number))
        log = next(each["label"] for each in submissions(self.folder) if str(each["pid"]) == number)
        return None if code is None or not self.explains else JobEnd(f"exit code {code}", code, (self.folder / f"{log}.log").read_text())

    def close(self):
        pass


def submissions(folder):
    """What was submitted so far."""
    path = folder / "submitted.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def alive(pid):
    """Whether a process runs; one that has ended and that nobody has waited for does not."""
    with contextlib.suppress(ChildProcessError):
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            ENDED[pid] = os.waitstatus_to_exitcode(status)
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def wait_for(pid, seconds=60.0):
    """Wait until a process has ended."""
    deadline = time.monotonic() + seconds
    while alive(pid):
        assert time.monotonic() < deadline, f"process {pid} goes on"
        time.sleep(0.1)
