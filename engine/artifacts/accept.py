"""Keeps a step's result although code or versions have changed, because a person accepts the change, and records the acceptance."""

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from engine.build.driver import resolve
from engine.core.errors import Problem, UserError
from engine.core.graph import Graph, Step
from engine.dvc import dvcfile, git, run_records
from engine.dvc.config import check_repository
from engine.dvc.disk import Disk
from engine.dvc.dvcfile import Entry, Record
from engine.dvc.locks import build_lock
from engine.dvc.recording import Recorder
from engine.dvc.run_records import RunRecord
from engine.dvc.store import Store
from engine.identity.provenance import parse
from engine.identity.text import digest
from engine.plan.decide import Action, Decision, Planner, Reason, unlike
from engine.plan.project import Project, write_text
from engine.plan.why import HARMLESS, check_step


@dataclass(frozen=True)
class Acceptance:
    """One result that is kept although its identity has changed."""

    step: Step
    record: Record
    """The recorded run that made the result."""
    before: str
    """Content address of the identity that the result was recorded for."""
    now: str
    reasons: tuple[Reason, ...]

    def __str__(self) -> str:
        return f"{self.step.name} is kept: {'; '.join(map(str, self.reasons))}"


def accept(project: Project, names: Sequence[str]) -> tuple[Acceptance, ...]:
    """Keep the results of all steps NAMES under their current identity; raises UserError, and keeps none, if one cannot be accepted.

    Returns an Acceptance for each step that was not up to date."""
    check_repository(project.root)
    for name in names:
        check_step(name, project.graph)
    with build_lock(project.root):
        store = project.store()
        accepted = judge(project.graph, store, project.identities, names)
        if accepted:
            _record(project, store, accepted)
        return accepted


def judge(graph: Graph, store: Store, identities: Mapping[str, str], names: Iterable[str]) -> tuple[Acceptance, ...]:
    """What would be accepted; raises UserError with every reason that cannot be accepted."""
    wanted = set(names)
    planner = Planner(graph, store, identities)
    accepted, problems = [], []
    pending: dict[str, None] = {}
    for step in graph.needed_for(wanted):
        decision = planner.decide(step)
        if decision.action is not Action.KEEP:
            pending[step.name] = None
        if step.name not in wanted or decision.action is Action.KEEP:
            continue
        record = store.record(step.name)
        if others := _others(step, decision, record, store):
            hint = _hint(step, decision, graph, pending)
            problems.append(Problem(f"{step.name} cannot be accepted: {'; '.join(others)}", step.origin, hint))
            continue
        assert record
        planner.outcomes[step.name] = record.outputs
        accepted.append(_acceptance(step, decision, record, identities[step.name], store))
    if problems:
        raise UserError(problems)
    return tuple(accepted)


def _others(step: Step, decision: Decision, record: Record | None, store: Store) -> list[str]:
    """The reasons against keeping the step's result."""
    found = [str(reason) for reason in decision.reasons if reason.cause not in HARMLESS]
    if record is None:
        return found
    # The plan checks outputs only if nothing else has changed.
    for path in step.outputs:
        if (entry := store.entry(path)) is None:
            found.append(f"{path} is missing")
        elif (recorded := record.outputs.get(path)) is None or entry.md5 != recorded.md5:
            found.append(f"{path} {unlike(entry, store)}")
    return list(dict.fromkeys(found))


def _hint(step: Step, decision: Decision, graph: Graph, pending: Container[str]) -> str:
    """What to do instead, by the kind of reason; PENDING are the steps so far that are not kept."""
    if all(reason.cause in (*HARMLESS, "upstream") for reason in decision.reasons):
        together = [other.name for other in graph.needed_for([step.name]) if other.name in pending]
        return f"accept it together with the steps it depends on: engine accept {' '.join(together)}"
    return f"only changes of code or environment can be accepted; run: engine build {step.name}"


def _acceptance(step: Step, decision: Decision, record: Record, identity: str, store: Store) -> Acceptance:
    known = record.dependencies.get(step.identity)
    before = store.read(known.md5) if known else None
    if before is None:
        # A fresh clone has no identities of older runs; their statements have them.
        provenance = parse(data) if (data := store.read(record.outputs[step.provenance].md5)) else None
        assert provenance, "without the old identity or statement there would be no reasons of code or environment"
        return Acceptance(step, record, provenance.identity, digest(identity), decision.reasons)
    return Acceptance(step, record, digest(before), digest(identity), decision.reasons)


def _record(project: Project, store: Disk, accepted: Iterable[Acceptance]) -> None:
    """Write the new identities as `resolve` does, then each acceptance into the record of its run and each run into DVC's records."""
    project.write_compiled()
    recorder = Recorder(project.root, store.hashes)
    resolve(project, store, recorder)
    for acceptance in accepted:
        step = acceptance.step
        _note(project, store, recorder, acceptance)
        identity = store.hashes.entry(step.identity)
        assert identity, f"resolve has written {step.identity}"
        recorder.finish(step, _read(acceptance, identity))
    recorder.flush()
    store.hashes.save()


def _read(acceptance: Acceptance, identity: Entry) -> dict[str, Entry]:
    """The run's dependencies, with the current identity; its inputs are as recorded, or they would be a reason."""
    step = acceptance.step
    old = dict(acceptance.record.dependencies) | {dvcfile.RESOLVED: dvcfile.resolved_entry()}
    return {path: old[path] for path in dvcfile.dependencies(step)} | {step.identity: identity}


def _note(project: Project, store: Disk, recorder: Recorder, acceptance: Acceptance) -> None:
    """Write the acceptance to the run record, next to the artifact and in the cache; the statement still says what was run."""
    step = acceptance.step
    statement = acceptance.record.outputs[step.provenance].md5
    note = {
        "from": acceptance.before,
        "to": acceptance.now,
        "reasons": [str(reason) for reason in acceptance.reasons],
        "git_commit": git.commit_of(project.root, "HEAD") if git.has_commits(project.root) else None,
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    accepted = (store.ran(step) or RunRecord(step.name, statement)).accept(note)
    write_text(project.root / step.run_record, accepted.text())
    run_records.keep(recorder.settings, accepted)


def as_data(accepted: Iterable[Acceptance]) -> list[dict[str, Any]]:
    """Plain JSON values, for `--json`."""
    return [{"step": a.step.name, "from": a.before, "to": a.now, "reasons": [reason.as_data() for reason in a.reasons]} for a in accepted]
