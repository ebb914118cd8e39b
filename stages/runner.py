"""Runs one step: checks that its inputs do not change, writes to a temporary folder, and moves the finished result into place."""

import fcntl
import importlib
import json
import os
import platform
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from engine.core.digests import digest, file_digests, listing_digest, scratch_name
from engine.core.errors import Location, UserError, did_you_mean
from engine.core.graph import ARTIFACTS, LIVE, PLOTS, metrics_path
from engine.core.memo import shared_path
from engine.core.part import Kind, with_tuples
from engine.core.workspace import CODE_ROOT
from engine.dvc.config import cache_settings
from engine.dvc.dvcfile import PIPELINE, RESOLVED, RESOURCES, TEMPORARY, Entry, command_of, resolved_entry, text_md5, waits_for_resolve
from engine.dvc.hashing import Hashes
from engine.dvc.recording import Recorder
from engine.dvc.run_records import RunRecord, keep, path_of
from engine.estimate.training import estimated
from engine.identity.behaviours import Behaviours, module_of
from engine.identity.code import Code
from engine.identity.environment import Environment, find, way_out
from engine.identity.provenance import Provenance
from engine.identity.text import Identities, merge_resources
from stages.process import numerics
from stages.process.job import Job
from stages.process.parent import die_with_parent
from stages.process.quiet import keep_quiet

MEASURED = "_measured"
"""Key of a body's metrics for times and memory, which differ between runs and go into the run record."""


@dataclass(frozen=True)
class Run:
    """One run of one step in one workspace."""

    root: Path
    kind: Kind
    name: str
    identity_text: str
    identity: Mapping[str, Any]
    resources: Mapping[str, Any]

    @property
    def temporary(self) -> Path:
        return self.root / ARTIFACTS / f".{self.name}.tmp"

    def read(self) -> dict[str, Entry]:
        """The content of every input, by path, computed without any cache."""
        hashes = Hashes(self.root)
        paths = [f"{ARTIFACTS}/identity/{self.name}.json", *self.identity["inputs"].values()]
        entries = {path: hashes.entry(path) for path in paths}
        missing = [path for path, entry in entries.items() if entry is None]
        if missing:
            raise UserError(f"inputs of {self.name} not found: {', '.join(missing)}", hint="run: engine build (or dvc repro)")
        return {path: entry for path, entry in entries.items() if entry}

    def code(self) -> dict[str, Any]:
        """The identity's description of the step's code, computed from the current files."""
        then: Mapping[str, Any] = self.identity["code"]
        now = Identities(CODE_ROOT, Environment(self.root)).code(then)
        # Code may have been listed since the step began; then it is still the same code.
        closures = Code(CODE_ROOT, shared_path("code"))
        return now | {unit: closures.closure([module_of(unit)]) for unit, found in then.items() if isinstance(found, Mapping)}


def run_step(kind_name: str, name: str) -> None:
    """Build the step NAME in the current folder; raises UserError for errors that the user can fix."""
    # A training saves its state when it receives a signal.
    die_with_parent(signal.SIGTERM)
    run = _load(Path.cwd(), kind_name, name)
    numerics.begin(run.resources.get("numerics", "portable"))
    keep_quiet()
    try:
        with _only_writer(run):
            _run(run)
    except UserError as error:
        raise UserError(replace(problem, where=problem.where or _origin(run)) for problem in error.problems) from error


def _origin(run: Run) -> Location | None:
    """The location of the step in the specs, for problems without a row or file."""
    file, _, rest = str(run.resources.get("origin") or "").partition(":")
    line, _, column = rest.partition(":")
    return Location(file, int(line) if line else None, int(column) if column else None) if file else None


def _run(run: Run) -> None:
    name = run.name
    _check_environment(run)
    _check_code(run)
    before = run.read()
    scratch = run.root / ARTIFACTS / "scratch" / scratch_name(name, run.identity_text, {path: entry.md5 for path, entry in before.items()})
    shutil.rmtree(run.temporary, ignore_errors=True)
    started, clock = datetime.now(UTC), time.monotonic()
    try:
        metrics = _work(run, scratch)
        _check_code(run)
        _check_inputs(run, before)
        measured = metrics.pop(MEASURED, {})
        # Attempts that were stopped and left a checkpoint count.
        measured |= {"seconds": round(time.monotonic() - clock + measured.get("earlier_seconds", 0.0), 3)}
        made = _move_into_place(run, metrics, before, started, measured)
        _keep_run(run, before)
    finally:
        shutil.rmtree(run.temporary, ignore_errors=True)
    _report(run, made, metrics)
    shutil.rmtree(scratch, ignore_errors=True)


def _load(root: Path, kind_name: str, name: str) -> Run:
    kinds = [path.parent.name for path in Path(__file__).parent.glob("*/body.py")]
    if kind_name not in kinds:
        raise UserError(f"unknown kind '{kind_name}'", hint=did_you_mean(kind_name, kinds))
    # Only this kind: importing all of them takes longer than many steps.
    kind: Kind = importlib.import_module(f"stages.{kind_name}").KIND
    path = root / ARTIFACTS / "identity" / f"{name}.json"
    if not path.exists():
        raise UserError(f"unknown step '{name}' in {root}", hint="run `dvc repro`, or first `engine compile` if the step is new")
    text = path.read_text("utf-8")
    identity = json.loads(text)
    if identity["kind"] != kind_name:
        raise UserError(f"step '{name}' is of kind {identity['kind']}, not {kind_name}")
    resources = root / RESOURCES / f"{name}.json"
    return Run(root, kind, name, text, identity, json.loads(resources.read_text("utf-8")) if resources.exists() else {})


@contextmanager
def _only_writer(run: Run) -> Iterator[None]:
    """Raise UserError if another process is building the same step."""
    path = run.root / TEMPORARY / "adapterbuild" / f"{run.name}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise UserError(f"{run.name} is being built by process {file.read().strip()}", hint="wait for it, or stop it with ^C") from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def _check_environment(run: Run) -> None:
    """Raise UserError if installed versions differ from those that the result would be recorded with."""
    asked = run.identity["environment"]
    here = {package: find(package) for package in asked}
    present = {package: version or asked[package] for package, version in here.items()}
    alike = Behaviours.of(CODE_ROOT).environment(present, run.identity["code"])
    missing = {package for package, version in here.items() if version is None}
    wrong = {package: wanted for package, wanted in asked.items() if package in missing or alike[package] != wanted}
    if wrong:
        said = "; ".join(f"{package} {here[package] or 'of no version'} is installed, the lock says {wrong[package]}" for package in wrong)
        raise UserError(f"{run.name} would be recorded under wrong versions: {said}", hint=way_out(run.root, wrong))


def _check_code(run: Run) -> None:
    """Raise UserError if the code has changed: DVC hashes dependencies only after the step, so an edit would pass for the code that ran."""
    now, then = run.code(), run.identity["code"]
    moved = [unit for unit in {*now, *then} if now.get(unit) != then.get(unit)]
    if moved:
        raise UserError(
            f"the code of {run.name} was edited after its identity was computed: {', '.join(sorted(moved))}",
            hint="run: dvc repro (or engine build)",
        )


def _check_inputs(run: Run, before: Mapping[str, Entry]) -> None:
    now = run.read()
    moved = [path for path in before if before[path].md5 != now[path].md5]
    if moved:
        raise UserError(f"{', '.join(moved)} changed while {run.name} was running: the result was discarded", hint="run it again")


def _work(run: Run, scratch: Path) -> dict[str, Any]:
    """Run the body with the temporary folder as output, and write its metrics there."""
    output = run.temporary / "artifact"
    output.mkdir(parents=True)
    scratch.mkdir(parents=True, exist_ok=True)
    # Relative to the workspace, the current folder, so that messages name files as the specs do.
    inputs = {role: Path(path) for role, path in run.identity["inputs"].items()}
    plot = run.temporary / "plot.csv" if run.kind.plots else None
    values = merge_resources(run.identity["recipe"], run.resources.get("resources", {}))
    parameters = run.kind.parameters.model_validate(with_tuples(values))
    body = importlib.import_module(f"stages.{run.kind.name}.body")
    metrics: dict[str, Any] = body.run(parameters, Job(run.name, inputs, output, plot, scratch, Path(LIVE) / run.name))
    if MEASURED in metrics:
        metrics[MEASURED] |= estimated(parameters, inputs, metrics[MEASURED])
    return metrics


def _provenance(run: Run, read: Mapping[str, Entry], beside: Mapping[str, bytes]) -> Provenance:
    """Provenance of the artifact, with the files BESIDE it (metrics, plot); stored next to the artifact, which does not depend on it."""
    files = file_digests(run.temporary / "artifact")
    return Provenance(
        step=run.name,
        kind=run.kind.name,
        digest=listing_digest(files),
        files=files,
        identity=digest(run.identity_text),
        recipe=run.identity["recipe"],
        inputs={role: {"path": path, "md5": read[path].md5} for role, path in run.identity["inputs"].items()},
        code=run.identity["code"],
        environment=run.identity["environment"],
        beside=beside,
    )


def _record(run: Run, statement: str, started: datetime, measured: Mapping[str, Any]) -> RunRecord:
    """The record of the run behind the statement with md5 STATEMENT: everything that differs between runs."""
    return RunRecord(
        step=run.name,
        statement=statement,
        started=started.isoformat(timespec="seconds"),
        finished=datetime.now(UTC).isoformat(timespec="seconds"),
        machine={
            "python": platform.python_version(),
            "host": platform.node(),
            "platform": platform.platform(),
            "cores": os.cpu_count(),
            "numerics": numerics.description(),
        },
        measured=measured,
        resources=run.resources.get("resources", {}),
        spec=run.resources.get("origin"),
        git_commit=_git_commit(run.root),
    )


def _git_commit(root: Path) -> str | None:
    command = ["git", "-C", str(root), "rev-parse", "HEAD"]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    return found.stdout.strip() if found.returncode == 0 else None


def _move_into_place(
    run: Run, metrics: Mapping[str, Any], read: Mapping[str, Entry], started: datetime, measured: Mapping[str, Any]
) -> Provenance:
    """Move small files first and the artifact last: if the artifact exists, the step is complete; returns the provenance."""
    artifact = run.root / ARTIFACTS / run.name
    beside = {metrics_path(run.kind.name, run.name): (json.dumps(metrics, indent=1, allow_nan=False, ensure_ascii=False) + "\n").encode()}
    if run.kind.plots:
        beside[f"{PLOTS}/{run.name}.csv"] = (run.temporary / "plot.csv").read_bytes()
    made = _provenance(run, read, beside)
    statement = made.text()
    record = _record(run, text_md5(statement), started, measured)
    for path, data in beside.items():
        _write(run.root / path, data)
    _write(run.root / path_of(run.name), record.text().encode())
    if (run.root / ".dvc").is_dir():
        keep(cache_settings(run.root), record)
    _write(artifact.with_name(f"{run.name}.provenance.json"), statement.encode())
    if artifact.exists():
        shutil.rmtree(artifact)
    (run.temporary / "artifact").replace(artifact)
    return made


def _keep_run(run: Run, read: Mapping[str, Entry]) -> None:
    """Add the run to the run cache if DVC has started it; `engine build` does so itself."""
    if os.environ.get("DVC_STAGE", "").rpartition(":")[2] != run.name or not (run.root / ".dvc").is_dir():
        return
    tracked = [metrics_path(run.kind.name, run.name), *([f"{PLOTS}/{run.name}.csv"] if run.kind.plots else [])]
    artifact = f"{ARTIFACTS}/{run.name}"
    waits = waits_for_resolve((run.root / PIPELINE).read_bytes(), run.name)
    needs = {**read, **({RESOLVED: resolved_entry()} if waits else {})}
    recorder = Recorder(run.root, Hashes(run.root))
    recorder.keep_run(command_of(run.kind.name, run.name), needs, (artifact, f"{artifact}.provenance.json", *tracked), tracked)


def _report(run: Run, made: Provenance, metrics: Mapping[str, Any]) -> None:
    if any((run.root / LIVE).glob("*/*.run")):
        from stages.reporting import report

        report(Path(LIVE), run.name, made.digest, metrics)


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_bytes(data)
    temporary.replace(path)
