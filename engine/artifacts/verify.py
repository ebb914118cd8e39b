"""Verifies an artifact against its provenance: recomputes every digest, and on request rebuilds it in a clean workspace."""

import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.artifacts.addresses import of_steps, only
from engine.build.driver import dvc_environment
from engine.core.digests import digest, file_digests, folder_digest, listing_digest, short
from engine.core.errors import UserError, did_you_mean
from engine.core.graph import ARTIFACTS, METRICS, PLOTS, Step
from engine.core.workspace import CODE_ROOT
from engine.dvc import dvcfile
from engine.dvc.disk import Disk
from engine.dvc.run_records import RunRecord
from engine.identity.behaviours import Behaviours
from engine.identity.environment import installed
from engine.identity.provenance import Provenance, parse
from engine.identity.text import Identities
from engine.plan.project import Project
from stages.process.starting import ours

COLUMNS = ("check", "passed", "detail")
_ACCEPTED = "a change of code or versions was accepted"
_BUILT = (ARTIFACTS, METRICS, PLOTS, dvcfile.LOCK, ".git", ".venv")
"""What a clean workspace starts without."""


@dataclass(frozen=True)
class Check:
    """One check of an artifact, and whether it passed."""

    what: str
    holds: bool
    detail: str = ""


def verify(project: Project, target: str, rebuild: bool = False) -> tuple[str, list[Check]]:
    """The step that TARGET names, and every check of its artifact; REBUILD also rebuilds it, which may take long."""
    step = find(project, target)
    path = project.root / step.provenance
    if not path.exists() or not (project.root / step.artifact).is_dir():
        raise UserError(f"{step.name} is not built", hint=f"run: engine build {step.name}")
    found = parse(path.read_bytes())
    if found is None:
        return step.name, [Check("provenance", False, f"{step.provenance} is damaged or in an unknown format")]
    checks = [*_checks(project, step, found)]
    checks.append(_ran(project.store().ran(step)))
    if rebuild:
        checks.append(_rebuilt(project, step, found))
    return step.name, checks


def find(project: Project, target: str) -> Step:
    """The step that TARGET names: a step, an experiment (its training, else its evaluation), or a content address.

    Raises UserError if there is none.
    """
    for name in (target, f"train-{target}", f"evaluate-{target}"):
        if name in project.graph:
            return project.graph[name]
    addresses = of_steps(project.root, project.graph)
    found = only(target, addresses)
    if found is None:
        project.refuse_sweep(target)
        known = [*(step.name for step in project.graph), *(short(address) for address in addresses.values())]
        raise UserError(f"unknown step, experiment or content address: {target}", hint=did_you_mean(target, known))
    return project.graph[found]


def _checks(project: Project, step: Step, provenance: Provenance) -> Iterator[Check]:
    store = project.store()
    files = file_digests(project.root / step.artifact)
    wrong = _different(files, provenance.files)
    yield Check("files", not wrong, wrong or f"{len(files)} files, {short(listing_digest(files))}")
    yield Check("content address", listing_digest(files) == provenance.digest, short(provenance.digest))
    yield _recorded(store, step)
    identity = _identity(project, step, provenance)
    yield identity
    accepted = identity.detail == _ACCEPTED
    moved = [
        f"{role} ({read['path']})"
        for role, read in provenance.inputs.items()
        if (entry := store.entry(read["path"])) is None or entry.md5 != read["md5"]
    ]
    yield Check("inputs", not moved, f"changed since: {', '.join(moved)}" if moved else f"{len(provenance.inputs)} unchanged")
    edited = _different(Identities(CODE_ROOT, project.environment).code(provenance.code), provenance.code)
    yield Check("code", accepted or not edited, f"{edited}; accepted" if edited and accepted else edited or f"{len(provenance.code)} units")
    have = {name: installed(name) for name in provenance.environment}
    alike = Behaviours.of(CODE_ROOT).environment(have, provenance.code)
    others = [f"{name} {have[name]} (was {was})" for name, was in provenance.environment.items() if alike[name] != was]
    yield Check("environment", accepted or not others, ", ".join(others) or f"{len(provenance.environment)} packages")


def _different(now: Mapping[str, Any], then: Mapping[str, Any]) -> str:
    """The names whose digests differ, as text; empty if none do."""
    names = sorted(name for name in {**now, **then} if now.get(name) != then.get(name))
    return f"differ: {', '.join(names[:5])}{' and more' if len(names) > 5 else ''}" if names else ""


def _recorded(store: Disk, step: Step) -> Check:
    """Check that DVC's record names the files on disk."""
    record = store.record(step.name)
    if record is None:
        return Check("record", False, "dvc.lock has no record of this step")
    wrong = [path for path, entry in record.outputs.items() if store.entry(path) != entry]
    return Check("record", not wrong, f"differ from dvc.lock: {', '.join(wrong)}" if wrong else "as in dvc.lock")


def _identity(project: Project, step: Step, provenance: Provenance) -> Check:
    """Check that the specs still describe what was built, or that the change was accepted."""
    now = digest(project.identities[step.name])
    ran = project.store().ran(step)
    accepted = [str(note.get("to")) for note in ran.accepted] if ran else []
    detail = (
        "as in the specs" if now == provenance.identity else _ACCEPTED if now in accepted else "specs, code or versions have changed since"
    )
    return Check("identity", now in (provenance.identity, *accepted), detail)


def _ran(ran: RunRecord | None) -> Check:
    """When and where the artifact was made; passes without a run record, too."""
    if ran is None:
        return Check("run", True, "no run record")
    machine = ran.machine
    return Check("run", True, f"{ran.finished}, {machine.get('cores', '?')} cores, {machine.get('platform', '?')}")


def _rebuilt(project: Project, step: Step, provenance: Provenance) -> Check:
    """Rebuild the step and all that it needs from scratch in a temporary workspace, and compare."""
    with tempfile.TemporaryDirectory(prefix="adapterbuild-verify-") as folder:
        root = Path(folder) / "workspace"
        shutil.copytree(project.root, root, ignore=_clean(project.root), symlinks=True)
        code = root if project.workspace.holds_code else CODE_ROOT
        command = ours("engine", "--workspace", str(root), "build", step.name, code=code)
        done = subprocess.run(command, cwd=root, env=dvc_environment(), stdout=subprocess.DEVNULL, check=False)
        if done.returncode:
            return Check("rebuild", False, f"the build failed with exit code {done.returncode}")
        again = folder_digest(root / step.artifact)
    return Check("rebuild", again == provenance.digest, f"{short(again)} from scratch")


def _clean(root: Path) -> Any:
    def ignored(folder: str, names: Sequence[str]) -> set[str]:
        place = Path(folder)
        if place == root:
            return set(_BUILT) & set(names)
        return {"cache", "tmp"} & set(names) if place == root / ".dvc" else {"__pycache__"} & set(names)

    return ignored
