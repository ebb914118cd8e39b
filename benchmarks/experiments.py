"""Builds the tiny twins of the published experiments, one workspace after another, and says which published outcomes they show.

`make experiments`, or `python -m benchmarks.experiments [NAME...]`. What was built stays below `artifacts/experiments`: stopped, it
goes on where it was.
"""

import argparse
import json
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from benchmarks.common import table
from benchmarks.outcomes import OUTCOMES, Outcome
from engine.build.driver import dvc_environment

ROOT = Path(__file__).parents[1]
SEEDS = ROOT / "specs" / "seeds"
DATA = ROOT.parent / "shared" / "data"
BUILT = ROOT / "artifacts" / "experiments"

DATA_SETS = {"falcon-180b-dolly": ("self_instruct", "wikitext2"), "flan-t5-methods": ("mts_dialog",)}
"""The public data sets that twins read, by experiment; the others need none."""


@dataclass(frozen=True)
class Built:
    """What became of one experiment."""

    experiment: str
    state: str
    seconds: float = 0.0
    processor: float = 0.0
    """Seconds of the processor, which other work on the machine does not lengthen."""
    outcomes: list[Outcome] = field(default_factory=list)


def missing_data(name: str) -> list[str]:
    """The data sets that NAME reads and that are not on this machine."""
    return [data for data in DATA_SETS.get(name, ()) if not (DATA / data).is_dir()]


def prepare(name: str, folder: Path) -> None:
    """Make FOLDER a workspace with the specs of NAME as they are now; what was built there stays."""
    folder.mkdir(parents=True, exist_ok=True)
    for part in ("specs", "published", "data"):
        shutil.rmtree(folder / part, ignore_errors=True)
        if (SEEDS / name / part).is_dir():
            shutil.copytree(SEEDS / name / part, folder / part)
    for data in DATA_SETS.get(name, ()):
        (folder / "data").mkdir(exist_ok=True)
        (folder / "data" / data).symlink_to(DATA / data, target_is_directory=True)
    if not (folder / ".dvc").is_dir():
        # A repository of its own: the folder around it is ignored by git, and DVC stays in no such folder.
        subprocess.run(["git", "init", "--quiet", str(folder)], check=True)
        run(folder, "init", ".")


def run(folder: Path, *command: str) -> int:
    """`engine COMMAND` in FOLDER, seen by whoever looks on; its exit code."""
    environment = dvc_environment() | {"PYTHONPATH": str(ROOT)}
    return subprocess.run([sys.executable, "-m", "engine", *command], cwd=folder, env=environment, check=False).returncode


def build(name: str, jobs: int) -> Built:
    """Build the twins of NAME and look at what came out."""
    if missing := missing_data(name):
        return Built(name, f"skipped: {', '.join(missing)} not in {DATA.name}")
    folder, started, used = BUILT / name, time.monotonic(), processor()
    prepare(name, folder)
    code = run(folder, "build", "-j", str(jobs))
    spent = time.monotonic() - started, processor() - used
    if code:
        return Built(name, f"failed (exit code {code})", *spent)
    return Built(name, "built", *spent, OUTCOMES[name](folder))


def processor() -> float:
    """Seconds of the processor that children have used so far."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def rows(found: Sequence[Built]) -> list[list[str]]:
    """A line for each outcome of each experiment."""
    lines = []
    for one in found:
        lines.append([one.experiment, _spent(one), "", ""])
        lines += [["", each.claim, each.measured, _word(each)] for each in one.outcomes]
    return lines


def _word(outcome: Outcome) -> str:
    return "yes" if outcome.holds else "NO" if outcome.needed else "not at this size"


def _spent(one: Built) -> str:
    return f"{one.state}, {one.seconds:.0f} s ({one.processor:.0f} s of the processor)" if one.seconds else one.state


def main() -> int:
    """Build what was named, all by default; 1 where something failed, or a twin does not show what it must."""
    names = sorted(OUTCOMES)
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("experiments", nargs="*", metavar="NAME", help=f"one of {', '.join(names)}; none given: all")
    parser.add_argument("-j", "--jobs", type=int, default=2, help="steps at once")
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    given = parser.parse_args()
    if unknown := sorted(set(given.experiments) - set(names)):
        parser.error(f"there is no experiment {unknown[0]}")
    found = []
    for number, name in enumerate(chosen := given.experiments or names, 1):
        print(f"== {name} ({number} of {len(chosen)})", file=sys.stderr, flush=True)
        found.append(build(name, given.jobs))
    print(table(["experiment", "outcome", "measured", "holds"], rows(found)))
    if given.json:
        print(json.dumps([asdict(one) for one in found]))
    return int(any(one.state.startswith("failed") or not all(each.holds or not each.needed for each in one.outcomes) for one in found))


if __name__ == "__main__":
    sys.exit(main())
