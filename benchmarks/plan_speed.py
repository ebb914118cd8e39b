"""The time of `engine plan` compared with `dvc repro --dry` and `dvc status` on the same, built graph, and of the start of light verbs.

    python benchmarks/plan_speed.py [--quick] [--steps N ...] [--json] [--dvc-up-to N] [--repeats N]

Each size is a workspace in a temporary folder with a copy of the code. Every measured command must say that there is nothing to do.
"""

import sys

if __name__ == "__main__":
    # Run as a script: this folder itself must not be searched, where a benchmark of tokenize would stand before Python's own module.
    sys.path[0] = __file__.rpartition("/benchmarks/")[0] or "."

import argparse
import json
import re
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.common import ROOT, Seconds, environment, machine, median, seconds, table, timed
from benchmarks.fabricate import SMALLEST

SIZES = (SMALLEST, 100, 1_000, 10_000)
QUICK_SIZES = (SMALLEST, 30)
UP_TO_DATE = "Data and pipelines are up to date."
YARDSTICK = (sys.executable, "-c", "import pydantic, typer, rich, yaml")
LIGHT_VERBS = {
    "engine --help": (sys.executable, "-m", "engine", "--help"),
    "engine check": (sys.executable, "-m", "engine", "check"),
    "engine plan": (sys.executable, "-m", "engine", "plan"),
}
# What changed less than two seconds ago is not remembered: a later edit could have the same time.
SETTLED_SECONDS = 2.1


@contextmanager
def workspace(steps: int) -> Iterator[tuple[Path, dict[str, str]]]:
    """A built workspace of STEPS steps with a copy of the code, and the environment to run commands in."""
    with tempfile.TemporaryDirectory(prefix="plan-speed-") as folder:
        root = Path(folder).resolve() / "workspace"
        env = environment(root.parent / "cache", root)
        for package in ("engine", "stages"):
            shutil.copytree(ROOT / package, root / package, ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("pyproject.toml", "requirements.lock", ".dvcignore", ".gitignore"):
            shutil.copy(ROOT / name, root / name)
        for command in (["git", "init", "--quiet"], [sys.executable, "-m", "dvc", "init", "--quiet"]):
            timed(command, root, env)
        timed([sys.executable, str(ROOT / "benchmarks" / "fabricate.py"), str(root), str(steps)], root, env)
        time.sleep(SETTLED_SECONDS)
        yield root, env


def plan_seconds(root: Path, env: Mapping[str, str], steps: int) -> Seconds:
    """The seconds of one whole `engine plan --json`, which must keep every step."""
    taken, output = timed([sys.executable, "-m", "engine", "plan", "--json"], root, env)
    kept = [step["action"] == "keep" for step in json.loads(output)["steps"]]
    assert all(kept) and len(kept) == steps + 1, f"{sum(kept)} of {len(kept)} steps are kept"
    return taken


def dvc_seconds(root: Path, env: Mapping[str, str], *command: str) -> Seconds:
    """The seconds of one DVC command, which must find everything up to date."""
    taken, output = timed([sys.executable, "-m", "dvc", *command], root, env)
    # `resolve` is the step that looks at the specs: it always runs, and nothing follows where it says the same.
    assert UP_TO_DATE in output or output.split() == ["resolve:", "always", "changed"] or command[0] == "repro", output[:2000]
    assert set(re.findall(r"Running stage '(.+?)'", output)) <= {"resolve"}, output[:2000]
    return taken


def measure(steps: int, repeats: int, with_dvc: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    """A row for STEPS steps, and in addition the first plan, the plan after an edit, and the phases inside the process."""
    with workspace(steps) as (root, env):
        timed([sys.executable, "-m", "engine", "--help"], root, env)  # compiles the copied code
        first = plan_seconds(root, env, steps)
        plan = median(lambda: plan_seconds(root, env, steps), repeats)
        row: dict[str, Any] = {"steps": steps, "plan_s": plan, "dvc_repro_dry_s": None, "dvc_status_s": None}
        processor: dict[str, float | None] = {"plan": plan_seconds(root, env, steps).processor, "dvc_repro_dry": None}
        if with_dvc:
            dvc_seconds(root, env, "status")  # DVC remembers hashes too
            row["dvc_status_s"] = median(lambda: dvc_seconds(root, env, "status"), repeats)
            processor["dvc_repro_dry"] = dvc_seconds(root, env, "repro", "--dry").processor
            row["dvc_repro_dry_s"] = median(lambda: dvc_seconds(root, env, "repro", "--dry"), repeats)
        phases = json.loads(timed([sys.executable, str(ROOT / "benchmarks" / "phases.py"), str(root)], root, env)[1])
        edited = edited_plan(root, env)
        processor |= {"first_plan": first.processor, "edited_plan": edited.processor}
        more = {"processor_s": processor, "first_plan_s": first, "edited_plan_s": edited, "phases_s": phases}
        return row, {"steps": steps, **more}


def edited_plan(root: Path, env: Mapping[str, str]) -> Seconds:
    """The seconds of a plan just after one value of one spec was edited; exactly one training must run, and what follows it may."""
    spec = root / "specs" / "run-00000.toml"
    spec.write_text(spec.read_text("utf-8").replace("learning_rate = 0.001", "learning_rate = 0.002"), "utf-8")
    taken, output = timed([sys.executable, "-m", "engine", "plan", "--json"], root, env, accepted=(2,))
    found = {step["name"]: step["action"] for step in json.loads(output)["steps"] if step["action"] != "keep"}
    behind = {f"{kind}-run-00000": "maybe" for kind in ("predict", "evaluate", "score")}
    assert found == {"resolve": "run", "train-run-00000": "run"} | behind, found
    return taken


def start_up(repeats: int) -> dict[str, float]:
    """Processor seconds of each light verb on this repository's own specs, and of the yardstick, interleaved; the least of many.

    Not wall seconds, and not medians: other work on the machine lengthens both."""
    taken: dict[str, list[float]] = {"yardstick": [], **{name: [] for name in LIGHT_VERBS}}
    with tempfile.TemporaryDirectory(prefix="plan-speed-") as cache:
        env = environment(Path(cache), ROOT)
        for number in range(repeats + 1):
            for name, command in {"yardstick": YARDSTICK, **LIGHT_VERBS}.items():
                spent, _ = timed(command, ROOT, env, accepted=(0, 2))
                if number:  # the first round warms what is remembered
                    taken[name].append(spent.processor)
    return {name: min(values) for name, values in taken.items()}


def report(content: Mapping[str, Any]) -> str:
    """What was measured as tables for people."""
    rows = [
        [
            f"{row['steps']:,}",
            *(seconds(row[key]) for key in ("plan_s", "dvc_repro_dry_s", "dvc_status_s")),
            *(f"{row[key] / row['plan_s']:.0f}" if row[key] else "–" for key in ("dvc_repro_dry_s", "dvc_status_s")),
            seconds(more["processor_s"]["plan"]),
            seconds(more["processor_s"]["dvc_repro_dry"]),
            seconds(more["first_plan_s"]),
            seconds(more["edited_plan_s"]),
            seconds(more["processor_s"]["edited_plan"]),
        ]
        for row, more in zip(content["rows"], content["details"], strict=True)
    ]
    columns = ["steps", "engine plan", "dvc repro --dry", "dvc status", "--dry / plan", "status / plan"]
    columns += ["plan, processor", "--dry, processor", "first plan", "plan after an edit", "after an edit, processor"]
    yardstick = content["start_up_s"]["yardstick"]
    starts = [[name, seconds(value), f"{value / yardstick:.2f}"] for name, value in content["start_up_s"].items()]
    return "\n\n".join([content["machine"], table(columns, rows), table(["start-up", "processor time", "/ yardstick"], starts)])


def options() -> argparse.Namespace:
    """What the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, nargs="+", metavar="N", help="only graphs of N steps")
    parser.add_argument("--json", action="store_true", help="one JSON value as the last line of stdout")
    parser.add_argument("--quick", action="store_true", help=f"only graphs of {' and '.join(map(str, QUICK_SIZES))} steps")
    parser.add_argument("--dvc-up-to", type=int, default=1_000, metavar="N", help="measure DVC up to N steps (default: 1000)")
    parser.add_argument("--repeats", type=int, default=3, metavar="N", help="take medians of N (default: 3)")
    return parser.parse_args()


def main() -> None:
    """Measure all sizes in one run and print them."""
    chosen = options()
    sizes = chosen.steps if chosen.steps else QUICK_SIZES if chosen.quick else SIZES
    measured = []
    for steps in sizes:
        print(f"{steps} steps ...", file=sys.stderr)
        measured.append(measure(steps, chosen.repeats, steps <= chosen.dvc_up_to))
    content: dict[str, Any] = {"rows": [row for row, _ in measured], "details": [more for _, more in measured]}
    content |= {"start_up_s": start_up(3 * chosen.repeats), "machine": machine()}
    print(json.dumps(content) if chosen.json else report(content))


if __name__ == "__main__":
    main()
