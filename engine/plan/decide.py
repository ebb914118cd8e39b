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
    """What a build does with a step."""

    KEEP = "keep"
    """It is up to date."""
    RESTORE = "restore"
    """The run cache has the result: nothing is computed."""
    RUN = "run"
    """It will run."""
    MAYBE = "maybe"
    """An input is rebuilt first; whether this step then runs depends on the result."""


@dataclass(frozen=True)
class Reason:
    """One reason for a decision: its cause, its subject, and the old and new values if there are any."""

    cause: str
    """never-built, recipe, wiring, code, revision, environment, input, upstream, output, command, cached, remote"""
    subject: str
    old: Any = None
    new: Any = None
    where: Location | None = None
    note: str = ""
    """Further explanation, such as the changelog line of a new revision."""

    def as_data(self) -> dict[str, Any]:
        """Plain JSON values, for `--json`."""
        where = str(self.where) if self.where else None
        return {"cause": self.cause, "subject": self.subject, "old": self.old, "new": self.new, "where": where, "text": str(self)}

    def __str__(self) -> str:
        sentence = SENTENCES[self.cause].format(subject=self.subject, old=_show(self.old), new=_show(self.new))
        return f"{sentence}  ({self.note})" if self.note else sentence


SENTENCES = {
    "never-built": "never built",
    "recipe": "{subject}  {old} → {new}",
    "wiring": "reads {subject}: {old} → {new}",
    "code": "code of {subject} {new}",
    "revision": "code of {subject}  revision {old} → {new}",
    "environment": "{subject}  {old} → {new}",
    "identity": "recipe, code or environment changed (the old identity is not in the cache)",
    "rewritten": "same identity in a different text, and DVC compares text: run engine build once",
    "input": "input {subject} {new}",
    "upstream": "depends on {subject}",
    "output": "{subject} {new}",
    "command": "command changed",
    "specs": "{subject} {new}",
    "cached": "the cache has the result of an earlier run",
    "remote": "DVC's remote has the result{new}",
    "perhaps-cached": "the cache has an earlier run of this recipe",
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
        """Number of steps with ACTION, without `resolve`, which computes nothing."""
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
    """Decide every step of GRAPH as `engine build` would, or with DVC as plain `dvc repro` would.

    IDENTITIES: the text of each step's identity file, by step name; DIGESTS: their md5, as far as it is known."""
    planner = Planner(graph, store, identities, digests or {}, dvc)
    decisions = tuple(planner.decide(step) for step in graph)
    return Plan(((resolve,) if resolve else ()) + decisions)


@dataclass
class Planner:
    """Decides one step at a time; a build calls it as outputs become known."""

    graph: Graph
    store: Store
    identities: Mapping[str, str]
    digests: Mapping[str, str] = field(default_factory=dict)
    """md5 of identity files, as far as it is known; the rest is computed from the text."""
    dvc: bool = False
    """Decide as `dvc repro` would, which finds fewer earlier results than `engine build`."""
    outcomes: dict[str, Mapping[str, Entry] | None] = field(default_factory=dict)
    """The outputs of each decided step, by path; None if known only after the step has run."""

    def decide(self, step: Step) -> Decision:
        """Decide one step whose producers are all decided, and store its expected outputs."""
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
            offer = self.store.offered.get(run.outputs[step.artifact].md5)
            found = (Reason("remote", step.name, new=offer),) if offer is not None else () if same else (Reason("cached", step.name),)
            return self._outcome(step, Action.RESTORE, (*reasons, *found), run.outputs)
        return self._outcome(step, Action.RUN, reasons, None)

    def earlier_run(self, step: Step, needs: Mapping[str, Entry], record: Record | None) -> Record | None:
        """A run with the same dependencies and restorable outputs: the recorded one, else the newest in the run cache, else None."""
        current = record is not None and not self._changes(step, record, needs)
        if record and current and (self.dvc or self._restorable(step, record)):
            # DVC checks out what the lock names; it does not search the run cache in this case.
            return record if self._restorable(step, record) else None
        # DVC tries only the newest entry, and gives up if it cannot read that one.
        keys = (dvcfile.run_key(command, needs, step.outputs) for command in self._commands(step))
        runs = islice(chain.from_iterable(self.store.runs(key) for key in keys), 1 if self.dvc else None)
        return next((run for run in runs if run and self._restorable(step, run)), None)

    def _commands(self, step: Step) -> tuple[str, ...]:
        """The commands under which a run of STEP may be recorded; DVC compares text and knows only the current one."""
        return (dvcfile.command(step),) if self.dvc else dvcfile.commands(step)

    def _undecided(self, step: Step, needs: Mapping[str, Entry], reasons: tuple[Reason, ...], upstream: tuple[Reason, ...]) -> Decision:
        """Decide a step with an input that is known only after its producer has run."""
        if not reasons:
            return self._outcome(step, Action.MAYBE, upstream, None)
        if self.store.runs_with(step.identity, needs[step.identity].md5):
            return self._outcome(step, Action.MAYBE, (*reasons, *upstream, Reason("perhaps-cached", step.name)), None)
        return self._outcome(step, Action.RUN, (*reasons, *upstream), None)

    def _outcome(self, step: Step, action: Action, reasons: tuple[Reason, ...], outputs: Mapping[str, Entry] | None) -> Decision:
        self.outcomes[step.name] = outputs
        return Decision(step.name, step.kind_name, action, reasons)

    def needs(self, step: Step) -> tuple[dict[str, Entry], tuple[str, ...]]:
        """The step's dependencies, by path, and the producers of those that are not known yet."""
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
        """The entry that PRODUCER leaves at PATH, an output or a file inside its artifact; None if known only after it has run."""
        outputs = self.outcomes[producer]
        if outputs is None:
            return None
        if path in self.graph[producer].outputs:
            return outputs.get(path)
        artifact = self.graph[producer].artifact
        files = self.store.tree(outputs[artifact].md5) if artifact in outputs else None
        md5 = dvcfile.inside_tree(files, path.removeprefix(f"{artifact}/")) if files is not None else None
        return Entry(md5) if md5 else None

    def _changes(self, step: Step, record: Record | None, needs: Mapping[str, Entry]) -> tuple[Reason, ...]:
        """How the recorded run differs from the step as it is now; inputs that are not known yet are skipped."""
        if record is None:
            return (Reason("never-built", step.name),)
        reasons: list[Reason] = []
        if record.command not in self._commands(step):
            reasons.append(Reason("command", step.name))
        old = record.dependencies.get(step.identity)
        if old is None or old.md5 != needs[step.identity].md5:
            changes = self._identity_changes(step, record)
            # DVC compares the text of identity files, `engine build` their meaning.
            reasons += changes or ([Reason("rewritten", step.name)] if self.dvc else [])
        for item in step.inputs.values():
            before, now = record.dependencies.get(item.path), needs.get(item.path)
            if now and before and before.md5 != now.md5:
                reasons.append(Reason("input", item.producer or item.path, new="changed", where=item.where))
            elif before is None and not reasons:
                reasons.append(Reason("input", item.producer or item.path, new="is new", where=item.where))
        if self.dvc and not step.producers and dvcfile.RESOLVED not in record.dependencies and not reasons:
            reasons.append(Reason("wiring", dvcfile.RESOLVED, None, dvcfile.RESOLVED))
        # A folder that is read in several roles would be listed once per role.
        return tuple(reason for place, reason in enumerate(reasons) if reason not in reasons[:place])

    def _identity_changes(self, step: Step, record: Record) -> list[Reason]:
        before = self._old_identity(step, record)
        if before is None:
            return [Reason("identity", step.name)]
        now = json.loads(self.identities[step.name])
        try:
            return identity_changes(step, before, now, self._behaviours)
        except (KeyError, TypeError, AttributeError):
            return [Reason("identity", step.name)]  # damaged, or written by an unknown release

    @cached_property
    def _behaviours(self) -> Behaviours:
        return Behaviours.of(CODE_ROOT)

    def _old_identity(self, step: Step, record: Record) -> Mapping[str, Any] | None:
        """The identity that a run was recorded for: from the cache, else from the run's statement, which remotes hold too; None if lost."""
        old = record.dependencies.get(step.identity)
        if old and (data := self.store.read(old.md5)):
            try:
                return dict(json.loads(data))
            except (ValueError, TypeError):
                pass  # a damaged cache object; the statement may still be intact
        made = record.outputs.get(step.provenance)
        provenance = parse(data) if made and (data := self.store.read(made.md5)) else None
        if provenance is None:
            return None
        reads = {role: read["path"] for role, read in provenance.inputs.items()}
        written = 1 if any(name.startswith("stages.") for name in provenance.code) else 2
        return {
            "format": written,
            "kind": provenance.kind,
            "recipe": provenance.recipe,
            "inputs": reads,
            "code": provenance.code,
            "environment": provenance.environment,
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
        # Metrics and plots are tracked by git, not kept in DVC's cache.
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
        # DVC pushes no files that git tracks: they are in the statement, or git has checked them out.
        data = self.store.obtain(run.outputs[step.provenance].md5)
        beside = beside_in(data) if data else {}
        return all(
            (path in beside and dvcfile.bytes_md5(beside[path]) == run.outputs[path].md5) or self.store.entry(path) == run.outputs[path]
            for path in lacking
        )


def identity_changes(step: Step, before: Mapping[str, Any], now: Mapping[str, Any], behaviours: Behaviours) -> list[Reason]:
    """The differences between two identities of one step, as reasons; empty if BEHAVIOURS knows both to leave the same bytes.

    BEFORE may be in an older format, or may lack lists of code or versions.
    """
    from engine.identity.text import with_defaults  # imports pydantic, which an up-to-date plan does not need

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
    """The differences in code between two identities: revisions by unit, edits by module."""
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
        # The modules of a revision are those that were last listed for it.
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
    """Every leaf that differs between two JSON values: its path, the old and the new value (None if absent)."""
    if isinstance(before, dict) and isinstance(now, dict):
        keys = dict.fromkeys([*now, *before])
        return [leaf for key in keys for leaf in differences(before.get(key), now.get(key), (*path, key))]
    if isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        return [leaf for number, pair in enumerate(zip(before, now, strict=True)) for leaf in differences(*pair, (*path, number))]
    return [] if canonical(before) == canonical(now) else [(path, before, now)]


def plan_resolve(expected: Mapping[str, str], found: Mapping[str, Entry | None]) -> Decision:
    """Decide `resolve`: EXPECTED holds the md5 of each path that it would write, FOUND the entry on disk, by path.

    DVC runs `resolve` in every `dvc repro`; it changes nothing if they match.
    """
    wrong = {path: entry for path, entry in found.items() if entry is None or entry.md5 != expected[path]}
    if len(wrong) == len(found) and None in wrong.values():
        reasons = [Reason("never-built", dvcfile.RESOLVE)]
    else:
        reasons = [Reason("output", path, new="is missing") for path, entry in wrong.items() if entry is None]
        reasons = reasons or ([Reason("specs", "specs, code or versions", new="changed")] if wrong else [])
    return Decision(dvcfile.RESOLVE, dvcfile.RESOLVE, Action.RUN if reasons else Action.KEEP, tuple(reasons))
