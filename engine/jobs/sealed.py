"""A sealed job: everything that a machine without the specs, the repository and the data needs to run one step."""

import contextlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from engine.core.digests import digest
from engine.core.errors import UserError
from engine.core.graph import ARTIFACTS, PLOTS, Step, metrics_path
from engine.dvc import dvcfile
from engine.dvc.dvcfile import Entry, Record
from engine.jobs.store import Store

FORMAT = 1

_WORD = re.compile(r"[a-z0-9][\w.+-]*", re.ASCII)
"""What names of steps and kinds are, as parts of paths and of command lines."""


@dataclass(frozen=True)
class SealedJob:
    """One step with the digests of everything that it reads."""

    step: str
    kind: str
    command: str
    """The command as DVC records it."""
    identity: str
    """The text of the identity file."""
    resources: str
    """The text of the resources file: how the step runs, which its result does not depend on."""
    reads: Mapping[str, Entry]
    """Every dependency by path, the identity included, as DVC records it."""
    outputs: tuple[str, ...]

    @classmethod
    def of(cls, step: Step, root: Path, reads: Mapping[str, Entry]) -> "SealedJob":
        """The job of STEP in the workspace ROOT, whose dependencies are READS."""
        identity, resources = root / step.identity, root / dvcfile.RESOURCES / f"{step.name}.json"
        texts = (identity.read_text("utf-8"), resources.read_text("utf-8") if resources.exists() else "{}")
        return cls(step.name, step.kind_name, dvcfile.command(step), *texts, reads, step.outputs)

    @cached_property
    def key(self) -> str:
        """Names the job: DVC's key of the run, the same for everybody who would run this step on this content."""
        return dvcfile.run_key(self.command, self.reads, self.outputs)

    @property
    def nodes(self) -> int:
        """On how many nodes at once the step runs."""
        found = json.loads(self.resources).get("resources", {}).get("nodes", 1)
        if not isinstance(found, int) or found < 1:
            raise ValueError(f"it runs on {found!r} nodes")
        return found

    @property
    def run_folder(self) -> str:
        """The folder of the run cache with the records of runs of this job."""
        return dvcfile.run_folder(self.key)

    @property
    def inputs(self) -> dict[str, Entry]:
        """What the step reads, other than what the job itself holds."""
        held = (f"{dvcfile.IDENTITIES}/{self.step}.json", dvcfile.RESOLVED)
        return {path: entry for path, entry in self.reads.items() if path not in held}

    def text(self) -> str:
        """The job as JSON; the inverse is `parse`."""
        reads = dvcfile.packed(Record(self.command, self.reads, {}))[1]
        content = {name: getattr(self, name) for name in ("step", "kind", "command", "identity", "resources", "outputs")}
        return json.dumps({"format": FORMAT, **content, "reads": reads}, indent=1, sort_keys=True) + "\n"


def parse(text: str) -> SealedJob:
    """The job in TEXT; raises UserError if it is none of this format, or if one of its paths would leave the job's folder."""
    try:
        content = json.loads(text)
        if content.pop("format") != FORMAT:
            raise UserError(
                "the job was sealed by another version of adapterbuild", hint="install the version of the build on this machine"
            )
        reads = {path: Entry(*entry) for path, entry in content.pop("reads").items()}
        job = SealedJob(**content | {"reads": reads, "outputs": tuple(content["outputs"])})
        _check(job)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"not a sealed job: {error}") from None
    return job


def _check(job: SealedJob) -> None:
    """Raise ValueError, KeyError or TypeError if JOB is none that a build has sealed: a worker writes and reads only what a step may."""
    if not _WORD.fullmatch(job.step) or not _WORD.fullmatch(job.kind) or job.command != dvcfile.command_of(job.kind, job.step):
        raise ValueError(f"the command of the step {job.step!r} cannot be {job.command!r}")
    for path, entry in job.reads.items():
        # Files outside of the workspace have absolute paths; a worker compares them, and writes none.
        if not Path(path).is_absolute() and (not dvcfile.is_inside(path) or path.split("/")[0] == ".dvc"):
            raise ValueError(f"it reads {path!r}")
        if not dvcfile.is_object(entry.md5):
            raise ValueError(f"{path!r} has the content {entry.md5!r}")
    made = {f"{ARTIFACTS}/{job.step}", f"{ARTIFACTS}/{job.step}.provenance.json", metrics_path(job.kind, job.step)}
    if not made <= set(job.outputs) <= made | {f"{PLOTS}/{job.step}.csv"}:
        raise ValueError(f"the step {job.step!r} cannot make {', '.join(map(repr, job.outputs))}")
    for path in (f"{dvcfile.IDENTITIES}/{job.step}.json", *json.loads(job.identity)["inputs"].values()):
        if path not in job.reads:
            raise ValueError(f"its identity names {path!r}, which it does not read")
    if not isinstance(json.loads(job.resources), dict):
        raise TypeError("its resources are no table")
    if job.nodes > 1 and job.kind != "train":
        raise ValueError(f"it runs on {job.nodes} nodes, and only trainings do")


def path_of(key: str) -> str:
    """Where the store keeps the job KEY."""
    return f"jobs/{key[:2]}/{key}.json"


def ended_path(key: str, attempt: str) -> str:
    """Where a worker tells how an ATTEMPT at the job ended."""
    return f"ended/{key[:2]}/{key}.{attempt}.json"


def read(store: Store, key: str) -> SealedJob:
    """The job KEY from the store; raises UserError if the store lacks it, or holds something else under its name."""
    if not re.fullmatch(r"[0-9a-f]{64}", key):
        raise UserError(
            f"'{key}' is not the key of a job", hint="keys are the names of the files in .dvc/tmp/adapterbuild/jobs, 64 hex digits"
        )
    texts = store.texts([path_of(key)])
    if not texts:
        raise UserError(f"the store has no job {key}", hint="the build that sealed it names the store")
    job = parse(texts[path_of(key)])
    if job.key != key:
        raise UserError(f"the job {key} in the store holds the job {job.key}: it was edited")
    if dvcfile.text_md5(job.identity) != job.reads[f"{dvcfile.IDENTITIES}/{job.step}.json"].md5:
        raise UserError(f"the identity in the job {key} is not the one that its name stands for: it was edited")
    return job


def seal(job: SealedJob, store: Store) -> int:
    """Write JOB to the store, after the content that it reads, which the cache must hold; returns the bytes sent."""
    sent = store.push(entry.md5 for entry in job.inputs.values())
    store.write(path_of(job.key), job.text())
    return sent


def parsed_runs(folder: Path) -> list[Record]:
    """The runs in a FOLDER of the run cache, which others have written; what is none is left out."""
    found = []
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        with contextlib.suppress(ValueError):
            found.append(dvcfile.parse_record(path.read_bytes()))
    return found


@dataclass(frozen=True)
class Ended:
    """How an attempt at a job ended, as the worker tells it."""

    status: int
    """The exit status of the step: 0, an error, or 75 for a step that was stopped and has saved its state."""
    host: str
    seconds: float
    log: str
    """The end of what the step wrote."""

    def text(self) -> str:
        """As JSON; the inverse is `ended`."""
        return json.dumps(self.__dict__) + "\n"


def ended(text: str) -> Ended | None:
    """How an attempt ended; None if TEXT does not say so, for instance since it has not arrived whole."""
    try:
        found = Ended(**json.loads(text))
        return found if isinstance(found.status, int) and isinstance(found.log, str) else None
    except (ValueError, TypeError):
        return None


def attempt_of(job: SealedJob, number: int, salt: str) -> str:
    """Names one attempt at JOB, so that what an earlier one left is not taken for this one's."""
    return digest(f"{job.key} {number} {salt}").removeprefix("sha256:")[:12]
