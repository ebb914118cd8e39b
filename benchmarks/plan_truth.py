"""Is the plan true? Random DAGs, random edits; each time the plan, then a real build, compared step by step and with an oracle.

    python benchmarks/plan_truth.py [--seed S] [--edits N] [--quick] [--json] [--builder dvc|engine]

The last line of stdout is {"edits", "steps", "disagreements", "stale", "needless"}; exit code 1 where the last three are not all zero.
The oracle knows by hand what each step reads (truth_world.py) and asks neither the plan nor DVC.
"""

import sys

if __name__ == "__main__":
    # Run as a script: this folder itself must not be searched, where a benchmark of tokenize would stand before Python's own module.
    sys.path[0] = __file__.rpartition("/benchmarks/")[0] or "."

import argparse
import copy
import json
import random
import tempfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.truth_edits import DAMAGES, EDITS
from benchmarks.truth_oracle import Oracle, compare
from benchmarks.truth_workspace import CommandError, Workspace
from benchmarks.truth_world import World

EDITS_PER_WORLD = 60
EDITS_AT_ONCE = 5
"""A plan and a build follow after so many edits at most: reasons meet, and an edit costs less."""
QUICK_EDITS = 12
COUNTS = ("edits", "steps", "disagreements", "stale", "needless")


@dataclass
class Commit:
    """An older state that can be checked out: the world, what was compiled, and which keys `dvc.lock` held."""

    name: str
    world: World
    compiled: dict[str, set[str]]
    recorded: dict[str, str]


@dataclass
class Session:
    """One random DAG and what happens to it."""

    root: Path
    draw: random.Random
    builder: str | None = None
    counts: Counter[str] = field(default_factory=Counter)
    actions: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.world = World.drawn(self.draw)
        self.place, self.oracle = Workspace(self.root), Oracle(self.root)
        self.place.make(self.world)
        self.compiled = self.world.wiring
        self.earlier: list[World] = []
        self.commits: list[Commit] = []

    def go(self, edits: int) -> None:
        """Build from nothing, then after each of EDITS edits."""
        self._plan_and_build("first build", self.builder or "dvc")
        self._commit()
        while self.counts["edits"] < edits:
            names = self._edits(min(self.draw.randint(1, EDITS_AT_ONCE), edits - self.counts["edits"]))
            builder = self.builder or self.draw.choice(["dvc", "engine"])
            try:
                self._follow(names, builder)
            except CommandError as error:  # nothing can be said of what would come after
                self.counts["disagreements"] += 1
                self.problems.append(f"edit {self.counts['edits']}, {', '.join(names)} ({builder}): {error}")
                return

    def _edits(self, number: int) -> list[str]:
        """Make NUMBER edits, or fewer up to one that must be refused; their names."""
        names: list[str] = []
        while len(names) < number and not self._refusable(names):
            names.append(self._edit())
        self.counts["edits"] += len(names)
        return names

    def _refusable(self, names: list[str]) -> bool:
        return not self.world.valid or "params_edited" in names

    def _follow(self, names: list[str], builder: str) -> None:
        if self._refusable(names):
            self._refused(names, builder)
            return
        self._plan_and_build(", ".join(names), builder)
        if self.draw.random() < 0.3:
            self._commit()

    def _edit(self) -> str:
        """Make a random edit that applies; its name."""
        before = copy.deepcopy(self.world)
        sort = self.draw.random()
        if sort < 0.08 and len(self.commits) > 1:
            return self._checkout()
        if sort < 0.2 and self.earlier:
            self.world = copy.deepcopy(self.draw.choice(self.earlier[-6:]))
            self.earlier.append(before)
            return self._write("revert")
        if sort < 0.42:
            return self._damage()
        while True:
            name = self.draw.choice(list(EDITS))
            self.world = copy.deepcopy(before)
            if EDITS[name](self.world, self.draw) and self.world != before:
                self.earlier.append(before)
                return self._write(name)

    def _damage(self) -> str:
        """Do something to the disk behind everyone's back."""
        while True:
            name = self.draw.choice(list(DAMAGES))
            try:
                DAMAGES[name](self.root, self.world, self.draw)
            except (FileNotFoundError, IndexError):
                continue  # an edit of a moment ago took away what this one would damage
            if name == "run_cache_deleted":
                self.oracle.forget_runs()
            return name

    def _write(self, name: str) -> str:
        self.world.write(self.root)
        return name

    def _commit(self) -> None:
        self.commits.append(Commit(self.place.commit(), copy.deepcopy(self.world), self.compiled, dict(self.oracle.recorded)))

    def _checkout(self) -> str:
        self._commit()
        chosen = self.draw.choice(self.commits[:-1])
        self.place.git("checkout", "--quiet", chosen.name)
        self.earlier.append(self.world)
        self.world, self.oracle.recorded = copy.deepcopy(chosen.world), dict(chosen.recorded)
        self.compiled = chosen.compiled
        return "git checkout"

    def _plan_and_build(self, name: str, builder: str) -> None:
        targets = self.world.targets
        recompile = builder == "dvc" and (self.compiled != self.world.wiring or self.draw.random() < 0.3)
        first = self.draw.random() < 0.5
        if recompile and first:
            self.place.must("engine", "compile")
        planned = self.place.plan(targets)
        if recompile and not first:
            self.place.must("engine", "compile")
        planned.pop("resolve")  # DVC runs it always, to look whether the specs say what they said; it is nobody's result
        self.compiled = self.world.wiring if recompile or builder == "engine" else self.compiled
        obtainable, recorded = self.oracle.before(), dict(self.oracle.recorded)
        done = self.place.repro(targets) if builder == "dvc" else self.place.build(targets, list(planned))
        same = {step: recorded.get(step) == key for step, key in self.oracle.keys(self.world).items()}
        self._count(f"{name} ({builder})", planned, compare(planned, done, same), *self.oracle.judge(self.world, done, obtainable))

    def _count(self, name: str, planned: Mapping[str, str], wrong: list[str], stale: list[str], needless: list[str]) -> None:
        self.counts.update(steps=len(planned), disagreements=len(wrong), stale=len(stale), needless=len(needless))
        self.actions.update(planned.values())
        self.problems += [f"edit {self.counts['edits']}, {name}: {what}" for what in (*wrong, *stale, *needless)]

    def _refused(self, names: list[str], builder: str) -> None:
        """A wrong spec or an edited generated file: what would use it refuses it and changes nothing; then it is taken back."""
        before = self.place.state()
        build = ["engine", "build", *self.world.targets] if builder == "engine" else ["engine", "compile"]
        commands = [build] if self.world.valid else [["engine", "plan", *self.world.targets], build]
        for command in commands:
            done = self.place.run(*command)
            if done.returncode != 1 or "Traceback" in done.stderr:
                self._disagree(f"{', '.join(names)}: `{' '.join(command)}` exits with {done.returncode}, and had to refuse")
        if self.place.state() != before:
            self._disagree(f"{', '.join(names)}: a refused command changed the workspace")
        self.actions["refused"] += 1
        if self.world.valid:
            self.place.must("engine", "compile", "--force")
            self.compiled = self.world.wiring
        else:
            self.world = self.earlier.pop()
            self._write("taken back")

    def _disagree(self, problem: str) -> None:
        self.counts["disagreements"] += 1
        self.problems.append(f"edit {self.counts['edits']}, {problem}")


def measure(seed: int, edits: int, builder: str | None = None, edits_per_world: int = EDITS_PER_WORLD) -> tuple[Counter[str], list[str]]:
    """Counts of all sessions of SEED, and every problem as a sentence."""
    counts: Counter[str] = Counter(dict.fromkeys(COUNTS, 0))
    actions: Counter[str] = Counter()
    problems: list[str] = []
    for start in range(0, edits, edits_per_world):
        with tempfile.TemporaryDirectory(prefix="plan-truth-") as folder:
            root = Path(folder).resolve() / "workspace"
            root.mkdir()
            session = Session(root, random.Random(f"{seed} {start}"), builder)
            session.go(min(edits_per_world, edits - start))
        counts += session.counts
        actions += session.actions
        problems += [f"seed {seed}, world {start // edits_per_world}, {problem}" for problem in session.problems]
        print(f"{counts['edits']} of {edits} edits: {dict(actions)}", *session.problems, sep="\n", file=sys.stderr, flush=True)
    return counts, problems


def main() -> int:
    """Measure and print; exit code 1 where the plan was not true."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--edits", type=int, default=200, metavar="N")
    parser.add_argument("--quick", action="store_true", help=f"only {QUICK_EDITS} edits")
    parser.add_argument("--json", action="store_true", help="nothing but the JSON value on stdout")
    parser.add_argument("--builder", choices=["dvc", "engine"], help="default: one or the other at random")
    chosen = parser.parse_args()
    counts, problems = measure(chosen.seed, QUICK_EDITS if chosen.quick else chosen.edits, chosen.builder)
    if not chosen.json:
        print("\n".join([*problems, f"{counts['edits']} edits, {counts['steps']} decisions, {len(problems)} problems"]))
    print(json.dumps({name: counts[name] for name in COUNTS}))
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
