"""The settings of a workspace's executor, `[tool.adapterbuild.executor]` in its pyproject.toml."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from engine.build.executors.cluster import Cluster, Needs
from engine.core.errors import Location, UserError, did_you_mean
from engine.core.workspace import SETTINGS, settings_of

GROUP = "adapterbuild.executors"
"""The group of entry points of executors in other packages."""

_UNITS = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}


@dataclass(frozen=True)
class ExecutorSettings:
    """Where a build runs by default, and what its steps need there."""

    on: str = "local"
    jobs: int | None = None
    command: tuple[str, ...] = ("engine",)
    """How a node starts this program."""
    lost_after: float = 90.0
    """Seconds that the end of a job may take to be seen in the store, once the scheduler no longer knows the job: NFS may show a
    new file only after a minute (acdirmax)."""
    needs: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """By kind of step, and `default`: cores, devices, memory in bytes, minutes."""
    rest: Mapping[str, Any] = field(default_factory=dict)
    """The executor's own settings."""

    def needs_of(self, kind: str, known: Needs) -> Needs:
        """What a step of KIND needs: KNOWN, unless the settings of all steps or of the kind say otherwise."""
        return replace(known, **{**self.needs.get("default", {}), **self.needs.get(kind, {})})


def executor_settings(root: Path, kinds: tuple[str, ...]) -> ExecutorSettings:
    """The settings of the workspace ROOT, whose steps are of KINDS; raises UserError for invalid ones."""
    rest = dict(settings_of(root).get("executor", {}))
    on, jobs, command, needs = rest.pop("on", "local"), rest.pop("jobs", None), rest.pop("command", "engine"), rest.pop("needs", {})
    lost_after = rest.pop("lost_after", ExecutorSettings.lost_after)
    if not isinstance(on, str):
        raise _wrong("on", "the name of an executor", on)
    if jobs is not None and (not isinstance(jobs, int) or jobs < 1):
        raise _wrong("jobs", "a number above zero", jobs)
    if not isinstance(lost_after, int | float) or isinstance(lost_after, bool) or lost_after < 0:
        raise _wrong("lost_after", "a number of seconds", lost_after)
    words = [command] if isinstance(command, str) else command
    if not isinstance(words, list) or not words or not all(isinstance(word, str) for word in words):
        raise _wrong("command", 'a program, or a list of words such as ["/opt/venv/bin/engine"]', command)
    if not isinstance(needs, dict):
        raise _wrong("needs", "a table", needs)
    found = {kind: _needs(kind, value, kinds) for kind, value in needs.items()}
    return ExecutorSettings(on, jobs, tuple(words), float(lost_after), found, rest)


def _needs(kind: str, given: Any, kinds: tuple[str, ...]) -> dict[str, int]:
    where = f"needs.{kind}"
    if kind not in ("default", *kinds):
        raise UserError(
            f"[tool.adapterbuild.executor] {where}: unknown kind of step", Location(SETTINGS), did_you_mean(kind, ["default", *kinds])
        )
    if not isinstance(given, dict):
        raise _wrong(where, "a table such as { cores = 4 }", given)
    found = {}
    for key, value in given.items():
        if key not in Needs.__dataclass_fields__:
            what = f"[tool.adapterbuild.executor] {where}.{key} is not a need"
            raise UserError(what, Location(SETTINGS), did_you_mean(key, list(Needs.__dataclass_fields__)))
        if key == "memory" and isinstance(value, str) and (match := re.fullmatch(r"(\d+(?:\.\d+)?) ?([KMGT]B)?", value)):
            value = int(float(match[1]) * _UNITS[match[2] or ""])
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise _wrong(f"{where}.{key}", 'a size such as "16GB"' if key == "memory" else "a number", value)
        found[key] = value
    return found


def _wrong(key: str, form: str, got: Any) -> UserError:
    return UserError(f"[tool.adapterbuild.executor] {key} must be {form}, got {got!r}", Location(SETTINGS))


def cluster(name: str, settings: Mapping[str, Any]) -> Cluster:
    """The cluster NAME with its SETTINGS; raises UserError for an unknown name, and for settings that it does not take."""
    if name == "slurm":
        from engine.build.executors.slurm import Slurm

        return Slurm.of(settings)
    if name == "ray":
        from engine.build.executors.ray_cluster import Ray

        return Ray.of(settings)
    found = {point.name: point for point in entry_points(group=GROUP)}
    if name not in found:
        raise UserError(f"unknown executor '{name}'", hint=did_you_mean(name, ["local", "slurm", "ray", *found]))
    made: Cluster = found[name].load()(settings)
    return made
