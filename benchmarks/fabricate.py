"""Makes a fully built workspace without running a step: specs of experiments that share tasks, and outputs of the right shape.

Run as `python fabricate.py FOLDER STEPS` with FOLDER (which holds a copy of the code) first on PYTHONPATH: the real build decides
and records, only the processes that it would start are replaced by a few small files.
"""

import sys

if __name__ == "__main__":
    # Run as a script: this folder itself must not be searched, where a benchmark of tokenize would stand before Python's own module.
    del sys.path[0]

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from engine.build.driver import build
from engine.build.executors.base import Finished
from engine.core.graph import Step
from engine.core.workspace import Workspace
from engine.dvc.dvcfile import Entry, text_md5
from engine.dvc.run_records import RunRecord
from engine.identity.provenance import Provenance
from engine.plan.decide import Decision, Plan
from engine.plan.project import Project
from stages.process.saved import Saved

SHARED_STEPS = 7
"""generate, split and tokenize of two tasks, and initialize."""
STEPS_OF_EXPERIMENT = 5
"""mix, train, predict, evaluate and score."""
SMALLEST = SHARED_STEPS + STEPS_OF_EXPERIMENT

COMMON = """
[model]
name = "toy"
architecture = { kind = "llama", hidden_size = 16, layers = 1, heads = 2, max_length = 64 }
tokenizer = { vocab_size = 300, tasks = ["task-0"] }

[training]
method = { kind = "lora", r = 2, lora_alpha = 4 }
global_batch = { rows = 4 }

[evaluation]
metrics = ["exact_match", "eos_rate"]
rows = 4

[resources]
threads = 1
"""

TASK = """
[tasks.{name}]
source = {{ kind = "jsonl", path = "data/{name}.jsonl" }}
prompts = ["Say {{{{ word }}}}:", "Again, {{{{ word }}}}:"]
teacher = {{ kind = "gold", column = "word" }}
split = {{ validation = 0.1, test = 0.2 }}
max_new_tokens = 4
"""

EXPERIMENT = """extends = ["parts/common.toml", "parts/tasks.toml"]

[experiment]
name = "run-{number:05}"
seed = {number}

[mixture]
tasks = {mixed}

[training]
steps = {steps}
learning_rate = {rate}

[evaluation]
tasks = {evaluated}
"""


def shape(steps: int) -> tuple[int, int, int]:
    """The number of experiments, of tasks that are only asked, and of tasks that are trained on too, that give a graph of STEPS steps.

    Raises ValueError where none do.
    """
    # One more task has two steps where it is only asked (generate, split), three where it is trained on (tokenize): they fill up the rest.
    asked_only, trained_on = ((0, 0), (3, 0), (1, 0), (0, 1), (2, 0))[(steps - SHARED_STEPS) % STEPS_OF_EXPERIMENT]
    experiments = (steps - SHARED_STEPS - 2 * asked_only - 3 * trained_on) // STEPS_OF_EXPERIMENT
    if experiments < 1:
        raise ValueError(f"no graph of this form has {steps} steps; the smallest has {SMALLEST}")
    return experiments, asked_only, trained_on


def write_specs(root: Path, steps: int) -> None:
    """Write the specs of a graph of STEPS steps, and the data that they name."""
    experiments, asked_only, trained_on = shape(steps)
    tasks = [f"task-{number}" for number in range(2 + trained_on + asked_only)]
    mixed = json.dumps(tasks[: 2 + trained_on])
    parts = root / "specs" / "parts"
    parts.mkdir(parents=True)
    (parts / "common.toml").write_text(COMMON)
    (parts / "tasks.toml").write_text("".join(TASK.format(name=name) for name in tasks))
    (root / "data").mkdir()
    for name in tasks:
        (root / "data" / f"{name}.jsonl").write_text("".join(json.dumps({"word": f"{name} {n}"}) + "\n" for n in range(40)))
    for number in range(experiments):
        rate = 1e-3 * (1 + number % 5)
        text = EXPERIMENT.format(number=number, steps=2 + number % 7, rate=rate, mixed=mixed, evaluated=json.dumps(tasks))
        (root / "specs" / f"run-{number:05}.toml").write_text(text)


@dataclass
class Fabricator:
    """An executor that writes what a step would leave: an artifact with all that others read of it, provenance, metrics and plot."""

    root: Path
    files: dict[str, set[str]]
    """The files of each artifact, by the step's name."""
    ended: list[Finished] = field(default_factory=list)
    detaches: bool = False
    keeps_going: bool = False

    def check(self, steps: Sequence[Step], plan: Plan) -> None:
        """Every step can run."""

    def free(self, step: Step) -> bool:
        """There is always room."""
        return True

    def start(self, step: Step, read: Mapping[str, Entry]) -> None:
        """Write the outputs of STEP."""
        for name in self.files[step.name]:
            self._write(f"{step.artifact}/{name}", f"{name} of {step.name}\n")
        digest = step.name.encode().hex()
        statement = Provenance(step.name, step.kind.name, f"sha256:{digest:0<64}", {}, "", {}, {}).text()
        self._write(step.provenance, statement)
        self._write(step.run_record, RunRecord(step.name, text_md5(statement), measured={"seconds": 1.5}).text())
        self._write(step.metrics, json.dumps({"rows_out": 40, "step": step.name}))
        if step.plots:
            self._write(step.plots, "step,loss\n1,2.0\n2,1.0\n")
        self.ended.append(Finished(step, 0, 0.0))

    def launch(self) -> None:
        """Nothing is held back."""

    def _write(self, path: str, text: str) -> None:
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)

    def wait(self) -> list[Finished]:
        """All that was started."""
        ended, self.ended = self.ended, []
        return ended

    def stop(self, asked: bool = True) -> list[Finished]:
        """All that was started."""
        return self.wait()

    def __enter__(self) -> Self:
        """Nothing is opened."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Nothing is closed."""


class Silence:
    """A view that shows nothing."""

    def decided(self, decision: Decision) -> None:
        """A step was kept or restored, or may start."""

    def started(self, step: Step, resumes: Saved | None) -> None:
        """A step has started."""

    def ended(self, finished: Finished) -> None:
        """A step has ended."""

    def waiting(self, first: Sequence[tuple[str, str]], undone: int) -> None:
        """Some steps wait."""

    def moved(self, step: Step) -> None:
        """What a step read has changed."""


def inside(project: Project) -> dict[str, set[str]]:
    """What other steps read inside each artifact, and two files where they read all of it."""
    files = {step.name: {"config.json", "model.safetensors"} for step in project.graph}
    for producer, name in _reads(project):
        files[producer].add(name)
    return files


def _reads(project: Project) -> Iterator[tuple[str, str]]:
    for step in project.graph:
        for item in step.inputs.values():
            if item.producer and item.path != project.graph[item.producer].artifact:
                yield item.producer, item.path.removeprefix(f"{project.graph[item.producer].artifact}/")


def main(folder: str, steps: str) -> None:
    """Fill FOLDER with a built workspace of STEPS steps."""
    root = Path(folder)
    write_specs(root, int(steps))
    project = Project(Workspace.at(root))
    assert len(project.graph) == int(steps)
    build(project, project.graph, Fabricator(root, inside(project)), Silence())


if __name__ == "__main__":
    main(*sys.argv[1:])
