"""(Graph, Store) -> decisions with reasons: the only place where "would it run?" is decided."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from typing import Any

from engine import dvcfile
from engine.behaviours import Behaviours, Code
from engine.collection import without_collection
from engine.digests import canonical
from engine.dvcfile import Entry, Record
from engine.errors import Location
from engine.graph import Graph, Step
from engine.store import Store
from engine.workspace import CODE_ROOT


class Action(StrEnum):
    """What `dvc repro` will do with a step."""

    KEEP = "keep"
    """It is up to date."""
    RESTORE = "restore"
    """The run cache has the result: nothing is computed."""
    RUN = "run"
    """It will run."""
    MAYBE = "maybe"
    """An input is rebuilt first; whether this step then runs depends on what comes out."""


@dataclass(frozen=True)
class Reason:
    """One cause of a decision: its sort, what it is about, and old and new value where there are any."""

    cause: str
    """never-built, recipe, wiring, code, revision, environment, input, upstream, output, command, cached"""
    subject: str
    old: Any = None
    new: Any = None
    where: Location | None = None
    note: str = ""
    """What a person should know of it, such as the changelog's line of a new revision."""

    def as_data(self) -> dict[str, Any]:
        """Plain JSON values, for `--json`."""
        where = str(self.where) if self.where else None
        return {"cause": self.cause, "subject": self.subject, "old": self.old, "new": self.new, "where": where, "text": str(self)}

    def __str__(self) -> str:
        sentence = _SENTENCES[self.cause].format(subject=self.subject, old=_show(self.old), new=_show(self.new))
        return f"{sentence}  ({self.note})" if self.note else sentence


_SENTENCES = {
    "never-built": "never built",
    "recipe": "{subject}  {old} → {new}",
    "wiring": "reads {subject}: {old} → {new}",
    "code": "code of {subject} {new}",
    "revision": "code of {subject}  revision {old} → {new}",
    "environment": "{subject}  {old} → {new}",
    "identity": "recipe, code or environment changed (the old one is not in the cache)",
    "input": "input {subject} {new}",
    "upstream": "follows {subject}",
    "output": "{subject} {new}",
    "command": "its command changed",
    "specs": "{subject} {new}",
    "cached": "an earlier run gave this result",
    "perhaps-cached": "an earlier run of this recipe is in the cache",
}


def _show(value: Any) -> str:
    return "none" if value is None else value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


@dataclass(frozen=True)
class Decision:
    """What will happen to one step, and why."""

    name: str
    kind: str
    action: Action
    reasons: tuple[Reason, ...] = ()

    def as_data(self) -> dict[str, Any]:
        """Plain JSON values, for `--json`."""
        reasons = [reason.as_data() for reason in self.reasons]
        return {"name": self.name, "kind": self.kind, "action": str(self.action), "reasons": reasons}


@dataclass(frozen=True)
class Plan:
    """Every decision, in the order in which the steps would run."""

    decisions: tuple[Decision, ...]

    def __getitem__(self, name: str) -> Decision:
        return self._by_name[name]

    @cached_property
    def _by_name(self) -> dict[str, Decision]:
        return {decision.name: decision for decision in self.decisions}

    def count(self, action: Action) -> int:
        return sum(decision.action is action for decision in self.decisions)

    @property
    def up_to_date(self) -> bool:
        return all(decision.action is Action.KEEP for decision in self.decisions)

    def as_data(self) -> dict[str, Any]:
        """Plain JSON values, for `--json`."""
        return {"steps": [decision.as_data() for decision in self.decisions]}


@without_collection
def make_plan(
    graph: Graph, store: Store, identities: Mapping[str, str], resolve: Decision | None = None, digests: Mapping[str, str] | None = None
) -> Plan:
    """Decide every step of GRAPH; IDENTITIES holds each step's identity file as `resolve` would write it, DIGESTS their md5."""
    planner = Planner(graph, store, identities, digests or {})
    decisions = tuple(planner.decide(step) for step in graph)
    return Plan(((resolve,) if resolve else ()) + decisions)


@dataclass
class Planner:
    """Decides step after step; a build asks it again as outputs become known."""

    graph: Graph
    store: Store
    identities: Mapping[str, str]
    digests: Mapping[str, str] = field(default_factory=dict)
    """The md5 of identities that are known already; of the others the text is taken."""
    outcomes: dict[str, Mapping[str, Entry] | None] = field(default_factory=dict)
    """What each decided step's outputs will hold, by path; None where only running tells."""

    def decide(self, step: Step) -> Decision:
        """Decide one step whose producers are decided; each exit records its reasons."""
        needs, unknown = self.needs(step)
        record = self.store.record(step.name)
        reasons = self._changes(step, record, needs)
        upstream = tuple(Reason("upstream", producer) for producer in unknown)
        if unknown:
            return self._undecided(step, needs, reasons, upstream)
        if record and not reasons:
            lost = self._lost_outputs(step, record)
            if not lost:
                return self._outcome(step, Action.KEEP, (), record.outputs)
            # DVC checks out what the lock names; it does not look into the run cache in this case.
            if self._restorable(step, record):
                return self._outcome(step, Action.RESTORE, lost, record.outputs)
            return self._outcome(step, Action.RUN, lost, None)
        if run := self.earlier_run(step, needs):
            return self._outcome(step, Action.RESTORE, (*reasons, Reason("cached", step.name)), run.outputs)
        return self._outcome(step, Action.RUN, reasons, None)

    def earlier_run(self, step: Step, needs: Mapping[str, Entry]) -> Record | None:
        """A run of the run cache that read just this and whose outputs the cache still holds."""
        run = self.store.run(dvcfile.run_key(dvcfile.command(step), needs, step.outputs))
        return run if run and self._restorable(step, run) else None

    def _undecided(self, step: Step, needs: Mapping[str, Entry], reasons: tuple[Reason, ...], upstream: tuple[Reason, ...]) -> Decision:
        """A step one of whose inputs only running its producer can tell."""
        if not reasons:
            return self._outcome(step, Action.MAYBE, upstream, None)
        if self.store.runs_with(step.identity, needs[step.identity].md5):
            return self._outcome(step, Action.MAYBE, (*reasons, *upstream, Reason("perhaps-cached", step.name)), None)
        return self._outcome(step, Action.RUN, (*reasons, *upstream), None)

    def _outcome(self, step: Step, action: Action, reasons: tuple[Reason, ...], outputs: Mapping[str, Entry] | None) -> Decision:
        self.outcomes[step.name] = outputs
        return Decision(step.name, step.kind_name, action, reasons)

    def needs(self, step: Step) -> tuple[dict[str, Entry], tuple[str, ...]]:
        """What the step will read, by path, and the producers of what cannot be known yet."""
        digest = self.digests.get(step.name) or dvcfile.text_md5(self.identities[step.name])
        needs = {step.identity: Entry(digest)}
        unknown: dict[str, None] = {}
        for item in step.inputs.values():
            entry = self._produced(item.producer, item.path) if item.producer else self.store.entry(item.path)
            if entry:
                needs[item.path] = entry
            else:
                unknown[item.producer or item.path] = None
        return needs, tuple(unknown)

    def _produced(self, producer: str, path: str) -> Entry | None:
        """What PRODUCER will have left at PATH, an output or something inside one; None where only running tells."""
        outputs = self.outcomes[producer]
        if outputs is None:
            return None
        artifact = self.graph[producer].artifact
        if path == artifact:
            return outputs.get(path)
        files = self.store.tree(outputs[artifact].md5) if artifact in outputs else None
        md5 = dvcfile.inside_tree(files, path.removeprefix(f"{artifact}/")) if files is not None else None
        return Entry(md5) if md5 else None

    def _changes(self, step: Step, record: Record | None, needs: Mapping[str, Entry]) -> tuple[Reason, ...]:
        """Why the recorded run is not one of this step as it is now; inputs that are not known yet say nothing here."""
        if record is None:
            return (Reason("never-built", step.name),)
        reasons: list[Reason] = []
        if record.command != dvcfile.command(step):
            reasons.append(Reason("command", step.name))
        old = record.dependencies.get(step.identity)
        if old is None or old.md5 != needs[step.identity].md5:
            reasons += self._identity_changes(step, old)
        for item in step.inputs.values():
            before, now = record.dependencies.get(item.path), needs.get(item.path)
            if now and before and before.md5 != now.md5:
                reasons.append(Reason("input", item.producer or item.path, new="changed", where=item.where))
            elif before is None and not reasons:
                reasons.append(Reason("input", item.producer or item.path, new="is new", where=item.where))
        # A folder that several roles read would be named once for each.
        return tuple(reason for place, reason in enumerate(reasons) if reason not in reasons[:place])

    def _identity_changes(self, step: Step, old: Entry | None) -> list[Reason]:
        data = self.store.read(old.md5) if old else None
        before = json.loads(data) if data else None
        if before is None:
            return [Reason("identity", step.name)]
        now = json.loads(self.identities[step.name])
        return identity_changes(step, before, now, self._behaviours)

    @cached_property
    def _behaviours(self) -> Behaviours:
        return Behaviours.of(CODE_ROOT)

    def _lost_outputs(self, step: Step, record: Record) -> tuple[Reason, ...]:
        """Outputs that are missing, edited, or gone from the cache."""
        return tuple(reason for path in step.outputs if (reason := self._lost(step, path, record.outputs.get(path))))

    def _lost(self, step: Step, path: str, recorded: Entry | None) -> Reason | None:
        if recorded is None:
            return Reason("output", path, new="was not recorded")
        found = self.store.entry(path)
        if found is None:
            return Reason("output", path, new="is missing")
        if found.md5 != recorded.md5:
            return Reason("output", path, new="was edited")
        # Metrics and plots are kept by git, not by DVC's cache.
        if path in (step.artifact, step.provenance) and not self.store.holds(recorded):
            return Reason("output", path, new="is not in the cache")
        return None

    def _restorable(self, step: Step, run: Record) -> bool:
        return set(run.outputs) == set(step.outputs) and all(self.store.holds_intact(entry) for entry in run.outputs.values())


def identity_changes(step: Step, before: Mapping[str, Any], now: Mapping[str, Any], behaviours: Behaviours) -> list[Reason]:
    """What differs between two identities of one step, as reasons; none where both say the same behaviour by BEHAVIOURS.

    The older one may have been written before its code or versions were listed, or in an older format.
    """
    from engine.identity import with_defaults  # brings pydantic, which a plan of what is up to date does not need

    before = behaviours.current(before, now["code"])
    before["recipe"] = with_defaults(before["recipe"], step.parameters)
    if canonical(before) == canonical(now):
        return []
    reasons = [
        Reason("recipe", ".".join(map(str, path)), old, new, step.locate(path))
        for path, old, new in differences(before["recipe"], now["recipe"])
    ]
    for path, old, new in differences(before["inputs"], now["inputs"]):
        reasons.append(Reason("wiring", "/".join(map(str, path)), old, new))
    reasons += code_changes(before["code"], now["code"], behaviours)
    for path, old, new in differences(before["environment"], now["environment"]):
        reasons.append(Reason("environment", str(path[0]), old, new))
    return reasons or [Reason("identity", step.name)]


def code_changes(before: Mapping[str, Code], now: Mapping[str, Code], behaviours: Behaviours) -> list[Reason]:
    """What differs between what two identities say of their code: revisions by unit, edits by module."""
    reasons: dict[str, Reason] = {}
    for unit in {**before, **now}:
        old, new = before.get(unit, {}), now.get(unit, {})
        if old == new:
            continue
        if isinstance(old, int) and isinstance(new, int):
            known = behaviours.units.get(unit)
            notes = [line for revision, line in sorted(known.changes.items()) if old < int(revision) <= new] if known else []
            reasons[unit] = Reason("revision", unit, old, new, note="; ".join(notes))
            continue
        # Of a revision the modules are known as they were listed last.
        was = behaviours.listed(new) if isinstance(old, int) else old
        is_now = behaviours.listed(old) if isinstance(new, int) else new
        moved = differences(was, is_now)
        for (module,), left, right in moved:
            what = "changed" if left and right else "is new" if right else "is no longer used"
            reasons[str(module)] = Reason("code", str(module), left, what)
        if not moved:
            reasons[unit] = Reason("code", unit, None, "changed")
    return list(reasons.values())


def differences(before: Any, now: Any, path: tuple[str | int, ...] = ()) -> list[tuple[tuple[str | int, ...], Any, Any]]:
    """Every leaf that differs between two JSON values: its path, the old and the new value (None where there is none)."""
    if isinstance(before, dict) and isinstance(now, dict):
        keys = dict.fromkeys([*now, *before])
        return [leaf for key in keys for leaf in differences(before.get(key), now.get(key), (*path, key))]
    if isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        return [leaf for number, pair in enumerate(zip(before, now, strict=True)) for leaf in differences(*pair, (*path, number))]
    return [] if canonical(before) == canonical(now) else [(path, before, now)]


def plan_resolve(
    record: Record | None,
    watched: Mapping[str, Entry | None],
    written: Mapping[str, Entry | None],
    holds: Callable[[Entry], bool],
    fresh: bool,
) -> Decision:
    """Decide `resolve`: WATCHED is what it would read, WRITTEN what lies where it writes, FRESH whether that is what it would write."""
    if record is None:
        reasons = [Reason("never-built", dvcfile.RESOLVE)]
    else:
        reasons = [
            Reason("specs", path, new="changed")
            for path, entry in watched.items()
            if entry is None or (old := record.dependencies.get(path)) is None or old.md5 != entry.md5
        ]
        reasons += [
            Reason("output", path, new="is missing" if entry is None else "was edited")
            for path, entry in written.items()
            if entry is None or (old := record.outputs.get(path)) is None or old.md5 != entry.md5
        ]
        reasons += [
            Reason("output", path, new="is not in the cache")
            for path, entry in written.items()
            if entry is not None and path != dvcfile.PARAMS and not holds(entry)
        ]
        if not reasons and not fresh:
            reasons = [Reason("specs", "code or environment", new="changed")]
    return Decision(dvcfile.RESOLVE, dvcfile.RESOLVE, Action.RUN if reasons else Action.KEEP, tuple(reasons))
