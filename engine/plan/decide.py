"""(Graph, Store) -> decisions with reasons: the only place where "would it run?" is decided."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from itertools import chain, islice
from typing import Any

from engine.core.digests import canonical
from engine.core.errors import Location
from engine.core.gc_pause import without_collection
from engine.core.graph import Graph, Step
from engine.core.workspace import CODE_ROOT
from engine.dvc import dvcfile
from engine.dvc.dvcfile import Entry, Record
from engine.dvc.store import Store
from engine.identity.behaviours import Behaviours, Code
from engine.identity.provenance import beside_in, parse


class Action(StrEnum):
    """What will be done with a step."""

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
    "rewritten": "its identity says the same in other words, and DVC compares words: run engine build once",
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
        """How many steps have ACTION; `resolve` only writes down what the specs say, and computes nothing."""
        return sum(decision.action is action for decision in self.decisions if decision.name != dvcfile.RESOLVE)

    @property
    def up_to_date(self) -> bool:
        return all(decision.action is Action.KEEP for decision in self.decisions)

    def as_data(self) -> dict[str, Any]:
        """Plain JSON values, for `--json`."""
        return {"steps": [decision.as_data() for decision in self.decisions]}


@without_collection
def make_plan(
    graph: Graph,
    store: Store,
    identities: Mapping[str, str],
    resolve: Decision | None = None,
    digests: Mapping[str, str] | None = None,
    dvc: bool = False,
) -> Plan:
    """Decide every step of GRAPH as `engine build` would, with DVC as plain `dvc repro` would.

    IDENTITIES holds each step's identity file as `resolve` would write it, DIGESTS their md5."""
    planner = Planner(graph, store, identities, digests or {}, dvc)
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
    dvc: bool = False
    """Decide as `dvc repro` would, which looks into fewer places than `engine build`."""
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
            reasons = lost
        if run := self.earlier_run(step, needs, record):
            same = record is not None and run.outputs == record.outputs and run.dependencies == record.dependencies
            return self._outcome(step, Action.RESTORE, reasons if same else (*reasons, Reason("cached", step.name)), run.outputs)
        return self._outcome(step, Action.RUN, reasons, None)

    def earlier_run(self, step: Step, needs: Mapping[str, Entry], record: Record | None) -> Record | None:
        """A run that read just this and whose outputs can be restored: the recorded one, else the newest of the run cache."""
        current = record is not None and not self._changes(step, record, needs)
        if record and current and (self.dvc or self._restorable(step, record)):
            # DVC checks out what the lock names; it does not look into the run cache in this case.
            return record if self._restorable(step, record) else None
        # DVC looks at the newest entry only, and at nothing where it cannot read that one.
        keys = (dvcfile.run_key(command, needs, step.outputs) for command in self._commands(step))
        runs = islice(chain.from_iterable(self.store.runs(key) for key in keys), 1 if self.dvc else None)
        return next((run for run in runs if run and self._restorable(step, run)), None)

    def _commands(self, step: Step) -> tuple[str, ...]:
        """The commands under which a run of STEP may be recorded; DVC compares texts, and knows today's alone."""
        return (dvcfile.command(step),) if self.dvc else dvcfile.commands(step)

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
        if not step.producers:
            needs[dvcfile.RESOLVED] = dvcfile.resolved_entry()
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
        if record.command not in self._commands(step):
            reasons.append(Reason("command", step.name))
        old = record.dependencies.get(step.identity)
        if old is None or old.md5 != needs[step.identity].md5:
            changes = self._identity_changes(step, record)
            # DVC compares the texts of identity files, `engine build` what they say.
            reasons += changes or ([Reason("rewritten", step.name)] if self.dvc else [])
        for item in step.inputs.values():
            before, now = record.dependencies.get(item.path), needs.get(item.path)
            if now and before and before.md5 != now.md5:
                reasons.append(Reason("input", item.producer or item.path, new="changed", where=item.where))
            elif before is None and not reasons:
                reasons.append(Reason("input", item.producer or item.path, new="is new", where=item.where))
        if self.dvc and not step.producers and dvcfile.RESOLVED not in record.dependencies and not reasons:
            reasons.append(Reason("wiring", dvcfile.RESOLVED, None, dvcfile.RESOLVED))
        # A folder that several roles read would be named once for each.
        return tuple(reason for place, reason in enumerate(reasons) if reason not in reasons[:place])

    def _identity_changes(self, step: Step, record: Record) -> list[Reason]:
        before = self._old_identity(step, record)
        if before is None:
            return [Reason("identity", step.name)]
        now = json.loads(self.identities[step.name])
        try:
            return identity_changes(step, before, now, self._behaviours)
        except (KeyError, TypeError, AttributeError):
            return [Reason("identity", step.name)]  # damaged, or of a release that this one does not know

    @cached_property
    def _behaviours(self) -> Behaviours:
        return Behaviours.of(CODE_ROOT)

    def _old_identity(self, step: Step, record: Record) -> Mapping[str, Any] | None:
        """The identity that a run was recorded for: as the cache has it, or as the run's statement tells it, which remotes carry too."""
        old = record.dependencies.get(step.identity)
        if old and (data := self.store.read(old.md5)):
            try:
                return dict(json.loads(data))
            except (ValueError, TypeError):
                pass  # a damaged object of the cache: the statement may still tell
        made = record.outputs.get(step.provenance)
        told = parse(data) if made and (data := self.store.read(made.md5)) else None
        if told is None:
            return None
        reads = {role: read["path"] for role, read in told.inputs.items()}
        written = 1 if any(name.startswith("stages.") for name in told.code) else 2
        return {
            "format": written,
            "kind": told.kind,
            "recipe": told.recipe,
            "inputs": reads,
            "code": told.code,
            "environment": told.environment,
        }

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
            return Reason("output", path, new=unlike(found, self.store))
        # Metrics and plots are kept by git, not by DVC's cache.
        if path in (step.artifact, step.provenance) and not self.store.holds(recorded):
            return Reason("output", path, new="is not in the cache")
        return None

    def _restorable(self, step: Step, run: Record) -> bool:
        if set(run.outputs) != set(step.outputs):
            return False
        held = self.store.holds_intact if self.dvc else self.store.obtainable
        lacking = [path for path, entry in run.outputs.items() if not held(entry)]
        if not lacking:
            return True
        if self.dvc or not set(lacking) <= {step.metrics, step.plots}:
            return False
        # What git tracks, DVC pushes to no remote: the statement carries it, or git has brought it.
        data = self.store.obtain(run.outputs[step.provenance].md5)
        beside = beside_in(data) if data else {}
        return all(
            (path in beside and dvcfile.bytes_md5(beside[path]) == run.outputs[path].md5) or self.store.entry(path) == run.outputs[path]
            for path in lacking
        )


def identity_changes(step: Step, before: Mapping[str, Any], now: Mapping[str, Any], behaviours: Behaviours) -> list[Reason]:
    """What differs between two identities of one step, as reasons; none where both say the same behaviour by BEHAVIOURS.

    The older one may have been written before its code or versions were listed, or in an older format.
    """
    from engine.identity.text import with_defaults  # brings pydantic, which a plan of what is up to date does not need

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


def unlike(found: Entry, store: Store) -> str:
    """Why an output is FOUND and not what `dvc.lock` records; an earlier result is in the cache, an edited one is not."""
    return "is from another run than the one in dvc.lock" if store.holds(found) else "was edited"


def differences(before: Any, now: Any, path: tuple[str | int, ...] = ()) -> list[tuple[tuple[str | int, ...], Any, Any]]:
    """Every leaf that differs between two JSON values: its path, the old and the new value (None where there is none)."""
    if isinstance(before, dict) and isinstance(now, dict):
        keys = dict.fromkeys([*now, *before])
        return [leaf for key in keys for leaf in differences(before.get(key), now.get(key), (*path, key))]
    if isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        return [leaf for number, pair in enumerate(zip(before, now, strict=True)) for leaf in differences(*pair, (*path, number))]
    return [] if canonical(before) == canonical(now) else [(path, before, now)]


def plan_resolve(expected: Mapping[str, str], found: Mapping[str, Entry | None]) -> Decision:
    """Decide `resolve`: EXPECTED is the md5 of what it would write, FOUND what lies there, by path.

    DVC runs it under every `dvc repro`; it changes nothing where that is the same.
    """
    wrong = {path: entry for path, entry in found.items() if entry is None or entry.md5 != expected[path]}
    if len(wrong) == len(found) and None in wrong.values():
        reasons = [Reason("never-built", dvcfile.RESOLVE)]
    else:
        reasons = [Reason("output", path, new="is missing") for path, entry in wrong.items() if entry is None]
        reasons = reasons or ([Reason("specs", "specs, code or versions", new="changed")] if wrong else [])
    return Decision(dvcfile.RESOLVE, dvcfile.RESOLVE, Action.RUN if reasons else Action.KEEP, tuple(reasons))
