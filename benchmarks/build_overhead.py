"""What `engine build` itself takes for each step that it runs: planning, scheduling and recording, without the steps' own processes.

    python benchmarks/build_overhead.py [--quick] [--steps N] [--jobs N] [--json]

Each step is a real process that only writes small files. Overhead is the wall time of the whole build (specs, compiling, resolving,
deciding, starting, recording) less the time in which at least one step's process ran; with one job that is the sum of the steps' seconds.
The processor time of the build's own process is given too: other work on the machine does not lengthen that.
"""

import sys

if __name__ == "__main__":
    # Run as a script: this folder itself must not be searched, where a benchmark of tokenize would stand before Python's own module.
    sys.path[0] = __file__.rpartition("/benchmarks/")[0] or "."

import argparse
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.common import machine, table
from benchmarks.fabricate import SMALLEST, Fabricator, Silence, inside, write_specs
from engine.build.driver import build, dvc_environment
from engine.build.executors.base import Finished
from engine.build.executors.local import Local
from engine.core.graph import Step
from engine.core.workspace import Workspace
from engine.dvc.dvcfile import Entry
from engine.plan.project import Project

SIZES = (100, 1_000)
QUICK_SIZES = (SMALLEST, 30)
WRITE = """
import json, pathlib, sys
for path, text in json.loads(sys.argv[1]).items():
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
"""


@dataclass
class Timed(Local):
    """Local processes, and the seconds in which any of them ran."""

    busy: float = 0.0
    since: float = 0.0
    seconds: float = 0.0

    def start(self, step: Step, read: Mapping[str, Entry]) -> None:
        """Start a process, and the clock with the first."""
        self.since = self.since if self._running else time.perf_counter()
        super().start(step, read)

    def wait(self) -> list[Finished]:
        """Wait until at least one step has ended; the time since then is the build's."""
        ended = super().wait()
        now = time.perf_counter()
        self.busy += now - self.since
        self.since = now
        self.seconds += sum(finished.seconds for finished in ended)
        return ended


@dataclass
class Written(Fabricator):
    """What each step would write, as a command."""

    texts: dict[str, str] = field(default_factory=dict)

    def _write(self, path: str, text: str) -> None:
        self.texts[path] = text

    def command(self, step: Step) -> list[str]:
        """A process that writes the outputs of STEP; Python without site-packages, so that it is short."""
        self.texts = {}
        self.start(step, {})
        return [sys.executable, "-I", "-S", "-c", WRITE, json.dumps(self.texts)]


def measure(steps: int, jobs: int) -> dict[str, Any]:
    """A row for a build of STEPS steps, all of which run."""
    with tempfile.TemporaryDirectory(prefix="build-overhead-") as folder:
        root = Path(folder).resolve() / "workspace"
        root.mkdir()
        os.environ["XDG_CACHE_HOME"] = folder
        for command in (["git", "init", "--quiet"], [sys.executable, "-m", "dvc", "init", "--quiet"]):
            subprocess.run(command, cwd=root, check=True)
        write_specs(root, steps)
        started, processor = time.perf_counter(), time.process_time()
        project = Project(Workspace.at(root))
        fake = Written(root, inside(project))
        executor = Timed(root, dvc_environment(), jobs, {"device": jobs}, fake.command)
        build(project, project.graph, executor, Silence())
        return row(steps, jobs, time.perf_counter() - started, time.process_time() - processor, executor)


def row(steps: int, jobs: int, wall: float, processor: float, executor: Timed) -> dict[str, Any]:
    """What was measured of one build."""
    overhead = wall - executor.busy
    times = {"wall_s": wall, "processes_s": executor.seconds, "overhead_s": overhead, "overhead_per_step_s": overhead / steps}
    times["processor_per_step_s"] = processor / steps
    return {"steps": steps, "jobs": jobs, **times}


def report(content: Mapping[str, Any]) -> str:
    """What was measured as a table for people."""
    columns = ["steps", "jobs", "build", "steps' own processes", "overhead", "overhead per step", "processor time per step"]
    rows = [
        [f"{r['steps']:,}", str(r["jobs"]), *(f"{r[key]:.2f} s" for key in ("wall_s", "processes_s", "overhead_s"))]
        + [f"{r[key] * 1_000:.1f} ms" for key in ("overhead_per_step_s", "processor_per_step_s")]
        for r in content["rows"]
    ]
    return f"{content['machine']}\n\n{table(columns, rows)}"


def main() -> None:
    """Measure all sizes in one run and print them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, metavar="N", help="only a graph of N steps")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="steps side by side (default: 1)")
    parser.add_argument("--json", action="store_true", help="one JSON value as the last line of stdout")
    parser.add_argument("--quick", action="store_true", help=f"only graphs of {' and '.join(map(str, QUICK_SIZES))} steps")
    chosen = parser.parse_args()
    sizes = (chosen.steps,) if chosen.steps else QUICK_SIZES if chosen.quick else SIZES
    content = {"rows": [measure(steps, chosen.jobs) for steps in sizes], "machine": machine()}
    print(json.dumps(content) if chosen.json else report(content))


if __name__ == "__main__":
    main()
