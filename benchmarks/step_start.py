"""The start of a step that computes with a model, as a new process and as a fork, and the first build of a new workspace in both ways.

    python benchmarks/step_start.py [--quick] [--json] [--repeats N]

A step has started when its body runs and torch, transformers and peft are imported. Processor time is given too: other work on
the machine does not lengthen it much.
"""

import sys

if __name__ == "__main__":
    # Run as a script: this folder itself must not be searched, where a benchmark of tokenize would stand before Python's own module.
    sys.path[0] = __file__.rpartition("/benchmarks/")[0] or "."

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.common import environment, machine, seconds, table, timed
from benchmarks.fabricate import SMALLEST
from benchmarks.plan_speed import workspace

BODY = """
import time
from pathlib import Path
from stages.models.folders import prepare_process

def run(parameters, job):
    prepare_process(threads=1, parts=1)
    import peft
    Path("started").write_text(f"{time.time()} {time.process_time()}")
    memory = dict(line.split(":", 1) for line in Path("/proc/self/smaps_rollup").read_text().splitlines()[1:])
    Path("memory").write_text(memory["Private_Dirty"].split()[0])
    return {}
"""
"""Of every step of the kind `initialize` in the workspace."""

_STARTS = """
import json, os, sys, time
from pathlib import Path
from engine.build.executors.local import Local
from engine.build.forks import Forks
from engine.core.workspace import Workspace
from engine.plan.project import Project

project = Project(Workspace.at(Path()))
project.write_compiled()
project.resolve()
step = next(step for step in project.graph if step.kind_name == "initialize")
environment = dict(os.environ)
found = {"rows": []}
for way, forks in (("process", None), ("fork", Forks(project.root, environment, project.graph))):
    with Local(project.root, environment, jobs=2, forks=forks) as executor:
        for number in range(int(sys.argv[1]) + 1):
            asked = time.time()
            executor.start(step, {})
            (finished,) = executor.wait()
            assert finished.status == 0, finished.log.read_text()
            started, processor = map(float, Path("started").read_text().split())
            row = {"way": way, "start_s": started - asked, "processor_s": processor}
            row["private_bytes"] = 1024 * int(Path("memory").read_text())
            if number:
                found["rows"].append(row)
            elif forks:
                found["server_s"] = row["start_s"]
                status = dict(line.split(":", 1) for line in Path(f"/proc/{forks._server.pid}/status").read_text().splitlines())
                found["server_bytes"] = 1024 * int(status["RssAnon"].split()[0])
print(json.dumps(found))
"""


def starts(repeats: int) -> dict[str, Any]:
    """Medians of REPEATS starts in each way, after one that is not counted; and the server's time and memory."""
    with workspace(SMALLEST) as (root, env):
        (root / "stages/initialize/body.py").write_text(BODY, "utf-8")
        found = json.loads(timed([sys.executable, "-c", _STARTS, str(repeats)], root, env)[1])
    rows = []
    for way in ("process", "fork"):
        measured = [row for row in found["rows"] if row["way"] == way]
        keys = ("start_s", "processor_s", "private_bytes")
        rows.append({"way": way, **{key: statistics.median(row[key] for row in measured) for key in keys}})
    return {"starts": rows, "server_s": found["server_s"], "server_bytes": found["server_bytes"]}


def first_build() -> list[dict[str, Any]]:
    """`engine init` and the build of the spec that it writes, in both ways."""
    rows = []
    for way, options in (("process", ["--no-fork"]), ("fork", [])):
        with tempfile.TemporaryDirectory(prefix="step-start-") as folder:
            root = Path(folder) / "workspace"
            root.mkdir()
            env = environment(Path(folder) / "cache", Path(__file__).parents[1])
            started = time.perf_counter()
            init, _ = timed([sys.executable, "-m", "engine", "init"], root, env)
            build, _ = timed([sys.executable, "-m", "engine", "build", *options], root, env)
            wall = time.perf_counter() - started
            rows.append({"way": way, "wall_s": wall, "processor_s": init.processor + build.processor})
    return rows


def report(content: Mapping[str, Any]) -> str:
    """What was measured as tables for people."""
    rows = [
        [row["way"], seconds(row["start_s"]), seconds(row["processor_s"]), f"{row['private_bytes'] / 1e6:,.0f} MB"]
        for row in content["starts"]
    ]
    tables = [table(["step as a", "start", "processor time", "memory of its own"], rows)]
    tables.append(f"server: {seconds(content['server_s'])} until its first fork has started, {content['server_bytes'] / 1e6:,.0f} MB")
    if content["first_build"]:
        builds = [[row["way"], seconds(row["wall_s"]), seconds(row["processor_s"])] for row in content["first_build"]]
        tables.append(table(["steps as a", "`engine init` and first build", "processor time"], builds))
    return "\n\n".join([content["machine"], *tables])


def main() -> None:
    """Measure both ways in one run and print them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5, metavar="N", help="take medians of N starts (default: 5)")
    parser.add_argument("--json", action="store_true", help="one JSON value as the last line of stdout")
    parser.add_argument("--quick", action="store_true", help="one start in each way, and no build")
    chosen = parser.parse_args()
    content = starts(1 if chosen.quick else chosen.repeats)
    content |= {"first_build": [] if chosen.quick else first_build(), "machine": machine()}
    print(json.dumps(content) if chosen.json else report(content))


if __name__ == "__main__":
    main()
