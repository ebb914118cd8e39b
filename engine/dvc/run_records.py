"""The record of one run: when, where, for how long, with which resources, at which commit. No digest depends on it.

It is stored next to the artifact (`artifacts/<step>.run.json`, not a DVC output) and in DVC's run cache, as a separate entry whose only
output is the statement that the run produced. So `dvc push --run-cache` and `dvc pull --run-cache` transfer it, `dvc gc` keeps it, and it
is found again when the artifact is restored.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from engine.core.graph import ARTIFACTS
from engine.dvc import dvcfile
from engine.dvc.dvcfile import Entry, Record
from engine.dvc.writing import Cache, make_folder, replace_with

FORMAT = 1
_PARAMS = "run-record"
"""The params key under which an entry of the run cache stores the text; DVC ignores it, since no stage has this entry's command."""


@dataclass(frozen=True)
class RunRecord:
    """The circumstances of the run that produced a statement."""

    step: str
    statement: str
    """The md5 of the statement, as DVC records it; identifies the result."""
    started: str = ""
    finished: str = ""
    machine: Mapping[str, Any] = field(default_factory=dict)
    measured: Mapping[str, Any] = field(default_factory=dict)
    """Seconds, bytes of memory, tokens per second, requests: values that differ between runs."""
    resources: Mapping[str, Any] = field(default_factory=dict)
    spec: str | None = None
    """Where the specs define the step: `file:line:column`."""
    git_commit: str | None = None
    accepted: Sequence[Mapping[str, Any]] = ()
    """Changes of code or environment that a user accepted with `engine accept`, each with its reasons."""

    def accept(self, note: Mapping[str, Any]) -> "RunRecord":
        """The same record with one more accepted change."""
        return replace(self, accepted=(*self.accepted, note))

    def text(self) -> str:
        """The content of the file `<artifact>.run.json`."""
        return json.dumps({"format": FORMAT, **asdict(self)}, indent=1, allow_nan=False, ensure_ascii=False) + "\n"


def parse(data: bytes | str) -> RunRecord | None:
    """The record in the content of a `.run.json` file; None if it is damaged or not a run record."""
    try:
        return from_json(json.loads(data))
    except ValueError:
        return None


def from_json(content: Any) -> RunRecord | None:
    """The record in a JSON value; None if it is not a run record of this format."""
    try:
        if content.get("format") != FORMAT:
            return None
        values = {name: content[name] for name in RunRecord.__dataclass_fields__}
        return RunRecord(**values | {"accepted": tuple(values["accepted"])})
    except (KeyError, TypeError, AttributeError):
        return None


def is_old(data: bytes) -> bool:
    """Whether a statement also describes its run, as in format 1."""
    return b'"adapterbuild_measured"' in data


def of_old_statement(content: Any, statement: str) -> RunRecord | None:
    """The record inside a statement of format 1 with the md5 STATEMENT; None if CONTENT does not describe a run."""
    try:
        definition, metadata = content["predicate"]["buildDefinition"], content["predicate"]["runDetails"]["metadata"]
        commits = [item["digest"]["gitCommit"] for item in definition["resolvedDependencies"] if "gitCommit" in item["digest"]]
        return RunRecord(
            step=definition["externalParameters"]["step"],
            statement=statement,
            started=metadata["startedOn"],
            finished=metadata["finishedOn"],
            machine=metadata["adapterbuild_machine"],
            measured=metadata["adapterbuild_measured"],
            resources=definition["internalParameters"]["resources"],
            spec=definition["externalParameters"]["spec"],
            git_commit=commits[0] if commits else None,
            accepted=tuple(metadata["adapterbuild_accepted"]),
        )
    except (KeyError, TypeError, AttributeError):
        return None


def path_of(step: str) -> str:
    """Path of the record of a step's last run, relative to the workspace."""
    return f"{ARTIFACTS}/{step}.run.json"


def folder_of(step: str, statement: str) -> str:
    """Path of the run cache's folder for the records of one statement, relative to the cache."""
    run = _run(step, statement)
    return dvcfile.run_folder(dvcfile.run_key(run.command, run.dependencies, run.outputs))


def _run(step: str, statement: str) -> Record:
    made = {f"{ARTIFACTS}/{step}.provenance.json": Entry(statement)}
    return Record(f"adapterbuild run-record {step}", made, made)


def keep(cache: Cache, record: RunRecord) -> None:
    """Add RECORD to the run cache, next to the records of other runs with the same result."""
    text = dvcfile.run_text(_run(record.step, record.statement), {_PARAMS: {"text": record.text()}})
    folder = cache.folder / folder_of(record.step, record.statement)
    path = folder / dvcfile.text_sha256(text)
    if not path.exists():
        make_folder(folder, cache)
        replace_with(path, text.encode(), cache.file_mode)


def kept(cache: Path, step: str, statement: str) -> list[RunRecord]:
    """The records of one statement in the run cache, sorted by the time at which the runs finished."""
    folder = cache / folder_of(step, statement)
    found = list(_parsed(folder.iterdir())) if folder.is_dir() else []
    return sorted((record for record in found if record.statement == statement), key=lambda record: record.finished)


def _parsed(paths: Iterable[Path]) -> Iterator[RunRecord]:
    for path in paths:
        if path.name.startswith("."):
            continue
        try:
            content = dvcfile.parse_yaml(path.read_bytes())
            record = parse(content["params"][_PARAMS]["text"])
        except (ValueError, KeyError, TypeError):
            continue  # a partial entry of a killed process
        if record:
            yield record


def merged(found: Sequence[RunRecord]) -> RunRecord | None:
    """The last of several runs with the same result, with the accepted changes of all of them; None if there are none."""
    if not found:
        return None
    accepted = {json.dumps(note, sort_keys=True): note for record in found for note in record.accepted}
    return replace(found[-1], accepted=tuple(accepted.values()))
