"""What is right: every result by a hash of what truly decides it, asked neither of the plan nor of DVC."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from benchmarks.truth_world import World


@dataclass
class Result:
    """The first result of one key, and what DVC's cache must hold to give it back."""

    content: str
    objects: tuple[str, ...]
    indexed: bool = True
    """Whether the run cache knows of it."""


@dataclass
class Oracle:
    """Remembers every result by a hash of what truly decides it."""

    root: Path
    results: dict[str, Result] = field(default_factory=dict)
    recorded: dict[str, str] = field(default_factory=dict)
    """Key of each step's last record in `dvc.lock`."""
    _known: set[tuple[str, str]] = field(default_factory=set)

    def keys(self, world: World) -> dict[str, str]:
        """The key of every step, from the files that now lie where it reads."""
        return {
            name: digest(name, json.dumps(own, sort_keys=True), *(file_digest(self.root / path) for path in files))
            for name, (own, files) in world.truths().items()
        }

    def content(self, step: str) -> str:
        """A digest of what lies where STEP writes, save for the provenance: it holds times."""
        folder = self.root / "artifacts" / step
        files = sorted(path for path in folder.rglob("*") if path.is_file()) if folder.exists() else []
        lines = [f"{path.relative_to(folder)} {file_digest(path)}" for path in files]
        return digest(*lines, file_digest(self.root / "metrics" / f"{step}.json"))

    def obtainable(self, step: str, key: str) -> bool:
        """Whether a result of this very key could be had without running."""
        result = self.results.get(key)
        if result is None or not (result.indexed or self.recorded.get(step) == key):
            return False
        return all((self.root / ".dvc/cache/files/md5" / md5[:2] / md5[2:]).exists() for md5 in result.objects)

    def before(self) -> dict[str, bool]:
        """For every known key, whether its result could be had; to be asked before a build."""
        return {key: self.obtainable(step, key) for step, key in self._known}

    def judge(self, world: World, done: Mapping[str, str], obtainable: Mapping[str, bool]) -> tuple[list[str], list[str]]:
        """Stale and needless steps of a finished build, as sentences; learns the results that are new."""
        stale, needless = [], []
        for step, key in self.keys(world).items():
            content, known = self.content(step), self.results.get(key)
            if known and content != known.content:
                stale.append(f"{step} ({done[step]}) is not what the same inputs gave before")
            if not known and done[step] != "run":
                stale.append(f"{step} was not run ({done[step]}), and was never built from these inputs")
            if known and done[step] == "run" and obtainable.get(key):
                needless.append(f"{step} ran, although the result was there")
            if done[step] == "run":
                self.results[key] = Result(known.content if known else content, self._objects(step))
                self._known.add((step, key))
            self.recorded[step] = key
        return stale, needless

    def _objects(self, step: str) -> tuple[str, ...]:
        """Every object of DVC's cache that STEP's outputs are made of, as `dvc.lock` lists them now."""
        lock = yaml.load((self.root / "dvc.lock").read_text("utf-8"), Loader=yaml.CSafeLoader)
        listed = [item["md5"] for item in lock["stages"][step]["outs"]]
        return (*listed, *(_md5(path) for path in sorted((self.root / "artifacts" / step).rglob("*")) if path.is_file()))

    def forget_runs(self) -> None:
        """The run cache was deleted."""
        for result in self.results.values():
            result.indexed = False


def compare(planned: Mapping[str, str], done: Mapping[str, str], same_inputs: Mapping[str, bool]) -> list[str]:
    """Where the plan and what was done disagree; SAME_INPUTS says which steps read just what their last record read."""
    wrong = []
    for step, action in planned.items():
        found = done.get(step, "nothing")
        if action != "maybe":
            right = found == action
        else:
            right = found in (("keep", "restore") if same_inputs[step] else ("run", "restore"))
        if not right:
            wrong.append(f"{step} was planned {action} and was {found}")
    return wrong


def digest(*parts: str) -> str:
    """sha256 of PARTS, as hex digits."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def file_digest(path: Path) -> str:
    """sha256 of a file, or a word that is none."""
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else "missing"


def _md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
