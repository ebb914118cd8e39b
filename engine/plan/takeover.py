"""Converts results recorded under an older identity text: before code or versions were listed, before a field was added, or in format 1.

The plan decides whether the old and the current identity are equivalent (`engine.plan.decide.identity_changes`). This module then
rewrites the result's statement and record as those of a run under the current identity.
"""

import json
from collections.abc import Mapping
from dataclasses import replace

from engine.core.digests import digest
from engine.core.graph import Step
from engine.dvc import dvcfile, run_records
from engine.dvc.disk import Disk
from engine.dvc.dvcfile import Entry
from engine.dvc.recording import Recorder
from engine.dvc.run_records import RunRecord, is_old
from engine.dvc.writing import replace_with
from engine.identity.provenance import parse


def converted(old: bytes, ran: RunRecord | None, beside: Mapping[str, bytes], identity: str) -> tuple[str, RunRecord | None] | None:
    """The statement and the run record of a result under IDENTITY, the text of its current identity file; None if OLD is damaged.

    OLD is the original statement, RAN its run record (in format 1 the statement is both), BESIDE metrics and plot by path. The returned
    statement is byte-identical to the one that a run under IDENTITY would write.
    """
    provenance = parse(old)
    if provenance is None:
        return None
    now = json.loads(identity)
    reads = {role: {"path": path, "md5": provenance.inputs[role]["md5"]} for role, path in now["inputs"].items()}
    provenance = replace(
        provenance,
        identity=digest(identity),
        recipe=now["recipe"],
        inputs=reads,
        code=now["code"],
        environment=now["environment"],
        beside=dict(beside),
    )
    statement = provenance.text()
    md5 = dvcfile.text_md5(statement)
    if is_old(old):
        return statement, run_records.of_old_statement(json.loads(old), md5)
    return statement, replace(ran, statement=md5) if ran else None


def take_over(recorder: Recorder, store: Disk, step: Step, read: Mapping[str, Entry], identity: str) -> Mapping[str, Entry]:
    """Rewrite the record of STEP, whose result is kept, as that of a run that read READ under IDENTITY; returns its outputs by path.

    The new statement replaces the old one in the workspace, and the run record is written next to it. An unreadable statement is left
    unchanged. The recorder's next `flush` writes the record to `dvc.lock`.
    """
    old = (recorder.root / step.provenance).read_bytes()
    beside = {path: (recorder.root / path).read_bytes() for path in (step.metrics, step.plots) if path}
    found = converted(old, store.ran(step), beside, identity)
    if found:
        statement, ran = found
        if ran and ran.accepted:
            # The statement still says what was run; the person's acceptance of it stays valid.
            note = {"to": digest(identity), "reasons": ["the accepted identity in its current text"]}
            ran = replace(ran, statement=dvcfile.bytes_md5(old)).accept(note)
        else:
            replace_with(recorder.root / step.provenance, statement.encode())
        if ran:
            replace_with(recorder.root / step.run_record, ran.text().encode())
            run_records.keep(recorder.settings, ran)
    return recorder.finish(step, read).outputs
