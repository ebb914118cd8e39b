"""Builds the experiments of this repository, one workspace after another, and says which published outcomes they show.

`make experiments`, or `python -m benchmarks.experiments [NAME...]`: the tiny twins of the published experiments. `make real` and
`make real-experiments` (`--real`): those on SmolLM2-135M-Instruct. What was built stays below `artifacts/experiments`: stopped, it goes
on where it was.
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

from benchmarks.common import REAL_MODEL, table
from benchmarks.outcomes import OUTCOMES, Outcome
from engine.build.driver import dvc_environment

ROOT = Path(__file__).parents[1]
SEEDS = ROOT / "specs" / "seeds"
DATA = ROOT.parent / "shared" / "data"
BUILT = ROOT / "artifacts" / "experiments"


@dataclass(frozen=True)
class Experiment:
    """A workspace of this repository, and what its build needs."""

    name: str
    source: Path
    """The folder whose specs and data are copied."""
    published: Path | None = None
    """The published workspace that its specs extend, if that is not in the folder."""
    data: tuple[str, ...] = ()
    """The public data sets that it reads."""
    real: bool = False
    """Whether it trains the real model."""
    script: Path | None = None
    """The script of another example that writes its rows, if it has no `prepare.py` of its own."""
    tasks: tuple[str, ...] = ()
    """The tasks of that script whose rows it reads."""

    def missing(self) -> list[str]:
        """What its build needs and this machine lacks."""
        model = ["the real model (make real-model)"] if self.real and not REAL_MODEL.exists() else []
        return model + [f"{data} in {DATA}" for data in self.data if not (DATA / data).is_dir()]

    def prepare(self, folder: Path) -> None:
        """Make FOLDER a workspace with the specs as they are now; what was built there stays."""
        folder.mkdir(parents=True, exist_ok=True)
        for part in ("specs", "published", "data", "models"):
            shutil.rmtree(folder / part, ignore_errors=True)
            if (self.source / part).is_dir():
                shutil.copytree(self.source / part, folder / part)
        if self.published:
            shutil.copytree(self.published, folder / "published")
        script = self.script or self.source / "prepare.py"
        if script.is_file():
            shutil.copy(script, folder)
            subprocess.run([sys.executable, "prepare.py", str(DATA), *self.tasks], cwd=folder, check=True)
        else:
            for data in self.data:
                (folder / "data").mkdir(exist_ok=True)
                (folder / "data" / data).symlink_to(DATA / data, target_is_directory=True)
        if self.real:
            (folder / "models").mkdir()
            (folder / "models" / REAL_MODEL.name).symlink_to(REAL_MODEL)
        if not (folder / ".dvc").is_dir():
            # A repository of its own: the folder around it is ignored by git, and DVC stays in no such folder.
            subprocess.run(["git", "init", "--quiet", str(folder)], check=True)
            run(folder, "init", ".")


EXPERIMENTS = {
    each.name: each
    for each in (
        Experiment("bloom-560m-chat", SEEDS / "bloom-560m-chat"),
        Experiment("falcon-180b-dolly", SEEDS / "falcon-180b-dolly", data=("self_instruct", "wikitext2")),
        Experiment("falcon-7b-summaries", SEEDS / "falcon-7b-summaries"),
        Experiment("flan-t5-methods", SEEDS / "flan-t5-methods", data=("mts_dialog",)),
        Experiment(
            "bloom-560m-chat-real",
            SEEDS / "bloom-560m-chat/real",
            SEEDS / "bloom-560m-chat/published",
            data=("instruction_induction",),
            real=True,
        ),
        Experiment(
            "falcon-180b-dolly-real",
            SEEDS / "falcon-180b-dolly/real",
            SEEDS / "falcon-180b-dolly/published",
            data=("self_instruct",),
            real=True,
        ),
        Experiment(
            "flan-t5-methods-real",
            SEEDS / "flan-t5-methods/real",
            SEEDS / "flan-t5-methods/published",
            data=("mts_dialog", "wikitext2"),
            real=True,
        ),
        Experiment("smollm2", ROOT / "specs/examples/smollm2", data=("instruction_induction", "ner", "sentence_polarity"), real=True),
        Experiment(
            "smollm2-preferences",
            ROOT / "specs/examples/smollm2-preferences",
            data=("instruction_induction", "sentence_polarity"),
            real=True,
            script=ROOT / "specs/examples/smollm2/prepare.py",
            tasks=("polarity", "passive"),
        ),
    )
}


@dataclass(frozen=True)
class Built:
    """What became of one experiment."""

    experiment: str
    state: str
    seconds: float = 0.0
    processor: float = 0.0
    """Seconds of the processor, which other work on the machine does not lengthen."""
    outcomes: list[Outcome] = field(default_factory=list)


def run(folder: Path, *command: str) -> int:
    """`engine COMMAND` in FOLDER, seen by whoever looks on; its exit code."""
    environment = dvc_environment() | {"PYTHONPATH": str(ROOT)}
    return subprocess.run([sys.executable, "-m", "engine", *command], cwd=folder, env=environment, check=False).returncode


def build(experiment: Experiment, jobs: int) -> Built:
    """Build EXPERIMENT, write its report, and look at what came out."""
    name = experiment.name
    if missing := experiment.missing():
        return Built(name, f"skipped: {', '.join(missing)} not found")
    folder, started, used = BUILT / name, time.monotonic(), processor()
    experiment.prepare(folder)
    code = run(folder, "build", "-j", str(jobs))
    spent = time.monotonic() - started, processor() - used
    if code:
        return Built(name, f"failed (exit code {code})", *spent)
    run(folder, "report")
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
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("experiments", nargs="*", metavar="NAME", help=f"one of {', '.join(sorted(EXPERIMENTS))}; none given: all")
    parser.add_argument("--real", action="store_true", help="where no name is given: all on the real model, in place of the tiny twins")
    parser.add_argument("-j", "--jobs", type=int, help="steps at once; default: 2, and 1 where a step uses all cores (the real model)")
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    given = parser.parse_args()
    if unknown := sorted(set(given.experiments) - EXPERIMENTS.keys()):
        parser.error(f"there is no experiment {unknown[0]}")
    chosen = [EXPERIMENTS[name] for name in given.experiments] or [each for each in EXPERIMENTS.values() if each.real == given.real]
    found = []
    for number, experiment in enumerate(chosen, 1):
        print(f"== {experiment.name} ({number} of {len(chosen)})", file=sys.stderr, flush=True)
        found.append(build(experiment, given.jobs or (1 if experiment.real else 2)))
    print(table(["experiment", "outcome", "measured", "holds"], rows(found)))
    if given.json:
        print(json.dumps([asdict(one) for one in found]))
    return int(any(one.state.startswith("failed") or not all(each.holds or not each.needed for each in one.outcomes) for one in found))


if __name__ == "__main__":
    sys.exit(main())
