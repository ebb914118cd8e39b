"""Results that were recorded in other words: before their code or versions were listed, before a field was added, or in format 1.

Whether a result may be taken over, that is whether its old identity and its present one mean the same, is for the plan to say
(`engine.plan.decide.identity_changes`). Here its statement and its record become those of a run under the present identity.
"""

import json
from collections.abc import Mapping
from dataclasses import replace

from engine.core.digests import digest
from engine.core.graph import Step
from engine.dvc import dvcfile, records
from engine.dvc.dvcfile import Entry
from engine.dvc.recording import Recorder
from engine.dvc.records import RunRecord, is_old
from engine.dvc.store import Disk
from engine.dvc.writing import replace_with
from engine.identity.provenance import parse


def converted(old: bytes, ran: RunRecord | None, beside: Mapping[str, bytes], identity: str) -> tuple[str, RunRecord | None] | None:
    """The statement and the run record of a result under IDENTITY, the text of its present identity file; None where OLD is damaged.

    OLD is the statement as it was written, RAN its run record (in format 1 the statement is both), BESIDE metrics and plot by path. The
    statement is equal to the byte to the one that a run under IDENTITY would write.
    """
    told = parse(old)
    if told is None:
        return None
    now = json.loads(identity)
    reads = {role: {"path": path, "md5": told.inputs[role]["md5"]} for role, path in now["inputs"].items()}
    told = replace(
        told,
        identity=digest(identity),
        recipe=now["recipe"],
        inputs=reads,
        code=now["code"],
        environment=now["environment"],
        beside=dict(beside),
    )
    statement = told.text()
    md5 = dvcfile.text_md5(statement)
    if is_old(old):
        return statement, records.of_old_statement(json.loads(old), md5)
    return statement, replace(ran, statement=md5) if ran else None


def take_over(recorder: Recorder, store: Disk, step: Step, read: Mapping[str, Entry], identity: str) -> Mapping[str, Entry]:
    """Rewrite the record of STEP, whose result is kept, as that of a run that read READ under IDENTITY; what the step left, by path.

    The new statement takes the place of the old one in the workspace, and the run record lies beside it. A statement that cannot be read
    stays as it is. The record reaches `dvc.lock` with the recorder's next `flush`.
    """
    old = (recorder.root / step.provenance).read_bytes()
    beside = {path: (recorder.root / path).read_bytes() for path in (step.metrics, step.plots) if path}
    found = converted(old, store.ran(step), beside, identity)
    if found:
        statement, ran = found
        if ran and ran.accepted:
            # The statement goes on telling what was run; that this counts as today's step is a person's word, which stays valid.
            note = {"to": digest(identity), "reasons": ["the accepted identity in the words of today"]}
            ran = replace(ran, statement=dvcfile.bytes_md5(old)).accept(note)
        else:
            replace_with(recorder.root / step.provenance, statement.encode())
        if ran:
            replace_with(recorder.root / step.run_record, ran.text().encode())
            records.keep(recorder.settings, ran)
    return recorder.finish(step, read).outputs
