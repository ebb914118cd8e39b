"""Results that were recorded in format 1, where one file beside the artifact told both what was made and how its run went.

`converted` splits such a file; `take_over` does so for a step and rewrites its record. Whether a result may be taken over, that is whether
its old identity and its present one mean the same, is for the caller to say.
"""

import json
from collections.abc import Mapping
from dataclasses import replace

from engine import dvcfile, records
from engine.digests import digest
from engine.dvcfile import Entry, Record
from engine.graph import Step
from engine.provenance import parse
from engine.recording import Recorder, replace_with
from engine.records import RunRecord
from engine.store import Disk


def is_old(data: bytes) -> bool:
    """Whether a statement describes its run, as those of format 1 did."""
    return b'"adapterbuild_measured"' in data


def converted(old: bytes, beside: Mapping[str, bytes], identity: str | None = None) -> tuple[str, RunRecord] | None:
    """The statement and the run record that a file of format 1 amounts to; None where it is damaged or of another format.

    BESIDE holds metrics and plot by path. With IDENTITY, the text of the step's present identity file, the statement is that of a run under
    this identity, equal to the byte to what such a run would write.
    """
    told = parse(old) if is_old(old) else None
    if told is None:
        return None
    told = replace(told, beside=dict(beside))
    if identity is not None:
        now = json.loads(identity)
        reads = {role: {"path": path, "md5": told.inputs[role]["md5"]} for role, path in now["inputs"].items()}
        told = replace(
            told, identity=digest(identity), recipe=now["recipe"], inputs=reads, code=now["code"], environment=now["environment"]
        )
    statement = told.text()
    ran = records.of_old_statement(json.loads(old), dvcfile.text_md5(statement))
    return (statement, ran) if ran else None


def take_over(recorder: Recorder, store: Disk, step: Step, identity: str) -> Record | None:
    """Rewrite the record of STEP, whose result was recorded in format 1, as one of a run under IDENTITY; None where that cannot be done.

    The statement takes the place of the old file in the workspace, and the run record lies beside it. `resolve` writes the identity file.
    The new record reaches `dvc.lock` with the recorder's next `flush`.
    """
    record = store.record(step.name)
    old = store.read(record.outputs[step.provenance].md5) if record and step.provenance in record.outputs else None
    if record is None or old is None or not is_old(old):
        return None
    beside = {path: data for path in (step.metrics, step.plots) if path and (data := _content(store, path, record)) is not None}
    found = converted(old, beside, identity) if beside.keys() == {path for path in (step.metrics, step.plots) if path} else None
    if found is None or store.entry(step.artifact) != record.outputs.get(step.artifact):
        return None
    statement, ran = found
    replace_with(recorder.root / step.provenance, statement.encode())
    replace_with(recorder.root / step.run_record, ran.text().encode())
    records.keep(recorder.settings, ran)
    read = dict(record.dependencies) | {dvcfile.RESOLVED: dvcfile.resolved_entry()}
    read[step.identity] = Entry(dvcfile.text_md5(identity), size=len(identity.encode()))
    return recorder.finish(step, {path: read[path] for path in dvcfile.dependencies(step)})


def _content(store: Disk, path: str, record: Record) -> bytes | None:
    """What a run left at PATH: as the workspace has it, or the cache."""
    entry = record.outputs.get(path)
    if entry is None:
        return None
    return (store.root / path).read_bytes() if store.entry(path) == entry else store.read(entry.md5)
