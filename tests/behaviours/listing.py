"""What a run of the golden suite says of the code and the versions that it ran with: alike, or a new revision."""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, get_args

from engine.core.digests import digest
from engine.core.part import Part, is_resource
from engine.identity.behaviours import FILE, Behaviours, Unit, Versions, closure_digest, module_of, unit_of
from engine.identity.code import Code
from engine.identity.environment import installed
from stages.export.formats.base import Exporting
from stages.kinds import KINDS
from tests.behaviours.suite import Outcome

GOLDEN = "tests/behaviours/golden.json"
"""What the golden suite left when the file of behaviours was last written; relative to the repository."""


def part_classes() -> list[type[Part]]:
    """Every class of parts that the recipe of a kind can hold."""
    found: dict[type[Part], None] = {}

    def visit(annotation: Any) -> None:
        if isinstance(annotation, type) and issubclass(annotation, Part) and annotation not in found:
            found[annotation] = None
            for info in annotation.model_fields.values():
                if not is_resource(info):
                    visit(info.annotation)
        for argument in get_args(annotation):
            visit(argument)

    for kind in KINDS.values():
        visit(kind.parameters)
    return list(found)


def _optional(part: type[Part]) -> tuple[str, ...]:
    """The packages that PART needs beyond a plain installation, with which the golden suite builds: its code counts as it is written."""
    return part.packages if issubclass(part, Exporting) else ()


def closures(code_root: Path) -> dict[str, dict[str, str]]:
    """Every unit that an identity can name, with the digests of the modules of its closure."""
    code = Code(code_root)
    modules = {*(f"stages.{kind}.body" for kind in KINDS), *(part.__module__ for part in part_classes() if not _optional(part))}
    found = {unit_of(module): code.closure([module]) for module in sorted(modules)}
    return {unit: closure for unit, closure in found.items() if closure and module_of(unit) in closure}


def packages() -> dict[str, str]:
    """The installed version of every package that an identity can name, of a plain installation."""
    parts = [part for part in part_classes() if not _optional(part)]
    names = {name for kind in KINDS.values() for name in kind.environment} | {name for part in parts for name in part.environment}
    return {name: installed(name) for name in sorted(names)}


@dataclass(frozen=True)
class Listing:
    """What is listed, and what the golden suite left when it was."""

    behaviours: Behaviours = field(default_factory=Behaviours)
    golden: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """For each step what it `read` and `left` as digests, and the `units` that decide it."""
    versions: int = 0
    """Number of the combination of versions that it was built with."""

    @classmethod
    def of(cls, root: Path) -> "Listing":
        """What stands in the two files below ROOT; raises ValueError where they are not of one run."""
        behaviours, text = Behaviours.of(root), (root / GOLDEN).read_bytes()
        if behaviours.golden != digest(text):
            raise ValueError(f"{FILE} and {GOLDEN} are of two runs of the golden suite: take both from one side, then run: make behaviours")
        content = json.loads(text)
        return cls(behaviours, content["steps"], content["versions"])

    def files(self) -> dict[str, str]:
        """The text of each file, sorted, one line an entry, so that a change reads well in git."""
        text = json.dumps({"steps": self.golden, "versions": self.versions}, sort_keys=True, indent=1, allow_nan=False) + "\n"
        return {GOLDEN: text, FILE: replace(self.behaviours, golden=digest(text.encode())).text()}


@dataclass(frozen=True)
class Verdict:
    """What follows from one run of the suite."""

    listing: Listing
    alike: tuple[str, ...] = ()
    """Units whose code has changed and whose steps left the same bytes."""
    changed: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Units that get a new revision, with the steps of the suite that show it."""
    uncovered: tuple[str, ...] = ()
    """Units that no step of the suite runs: never listed."""
    unexplained: tuple[str, ...] = ()
    """Steps that left other bytes although neither their code nor what they read has changed: other versions, or another machine."""

    @property
    def behaviours(self) -> Behaviours:
        """What is listed now."""
        return self.listing.behaviours


def judge(
    known: Listing,
    code: Mapping[str, Mapping[str, str]],
    outcomes: Mapping[str, Outcome],
    versions: Mapping[str, str],
    line: str = "",
    raised: Collection[str] = (),
    cause: Collection[str] = (),
) -> Verdict:
    """Compare OUTCOMES of the suite, built with CODE (unit to closure) and VERSIONS, with what is listed.

    A unit whose closure is not listed gets a new revision where a step that it decides read the same as before and left something else. A
    step that read something else cannot be compared; one of its units at least gets a new revision too. LINE is the changelog's line of
    what gets one. RAISED: units that get one whatever the suite shows, since only a machine that it does not run on would show the change.

    CAUSE: the units in which an edit changes behaviour, as its author says where the edit lies in a module that others import too. The
    other units of a step keep their revisions then, as long as another step shows each of them to be alike. A step that left other bytes
    and has no unit of CAUSE contradicts the author, and is treated as without CAUSE.
    """
    old, listed_golden = known.behaviours, known.golden
    covering: dict[str, list[str]] = {}
    for name, outcome in outcomes.items():
        for unit in outcome.units:
            covering.setdefault(unit, []).append(name)
    for name, golden in listed_golden.items():
        for unit in golden["units"]:
            if name not in covering.setdefault(unit, []):
                covering[unit].append(name)
    digests = {unit: closure_digest(closure) for unit, closure in code.items()}
    listed = {unit for unit, known in old.units.items() if digests.get(unit) in known.closures}

    def same(name: str) -> bool:
        golden, outcome = listed_golden.get(name), outcomes.get(name)
        return bool(golden and outcome and golden["read"] == outcome.read and golden["left"] == outcome.left)

    edited = {
        unit for unit in digests if unit in old.units and unit not in listed and any(name in outcomes for name in covering.get(unit, []))
    }
    shown = {unit for unit in edited if any(map(same, covering[unit]))}
    changed: dict[str, list[str]] = {}
    incomparable: list[str] = []
    for name, golden in listed_golden.items():
        outcome = outcomes.get(name)
        if outcome is None or golden["read"] != outcome.read:
            incomparable.append(name)
        elif golden["left"] != outcome.left:
            suspects = edited & {*golden["units"], *outcome.units}
            named = suspects & set(cause)
            for unit in named | (suspects - shown) if named else suspects:
                changed.setdefault(unit, []).append(name)
    for name in incomparable:
        # Nobody knows what these would leave: one unit at least of each gets a new revision, so that users' steps like it run again; those
        # units, if there are such, that no other step shows to be alike.
        suspects = edited & {*listed_golden[name]["units"], *(outcomes[name].units if name in outcomes else ())}
        if suspects and not suspects & changed.keys():
            for unit in suspects - shown or (() if cause else suspects):
                changed.setdefault(unit, []).append(name)
    for unit in edited - shown:
        # No step that could be compared shows that it still does the same.
        changed.setdefault(unit, [])
    for unit in raised:
        changed.setdefault(unit, [])
    units: dict[str, Unit] = dict(old.units)
    alike, uncovered = [], []
    for unit, found in digests.items():
        unit_before = old.units.get(unit)
        if not any(name in outcomes for name in covering.get(unit, [])):
            uncovered.append(unit)
        elif unit_before is None:
            units[unit] = Unit(1, {found: 1})
        elif unit in changed:
            revision = max(unit_before.closures.values()) + 1
            units[unit] = Unit(revision, {**unit_before.closures, found: revision}, {**unit_before.changes, str(revision): line})
        else:
            revision = unit_before.closures.get(found, unit_before.revision)
            units[unit] = replace(unit_before, revision=revision, closures={**unit_before.closures, found: revision})
            alike += [] if unit in listed else [unit]
    unexplained = tuple(
        name
        for name, outcome in outcomes.items()
        if (golden := listed_golden.get(name))
        and golden["read"] == outcome.read
        and golden["left"] != outcome.left
        and set(outcome.units) <= listed
    )
    modules = {module: found for closure in code.values() for module, found in closure.items()}
    # What versions leave the same bytes was shown for the revisions before.
    old = replace(
        old, versions=tuple(replace(item, units=tuple(unit for unit in item.units if unit not in changed)) for item in old.versions)
    )
    alike_under_both = {unit for unit in listed | set(alike) if all(map(same, covering.get(unit, [])))}
    combinations, number = _versions(old, known.versions, versions, alike_under_both)
    golden = {name: asdict(outcome) | {"units": list(outcome.units)} for name, outcome in outcomes.items()}
    new = Listing(Behaviours(units, combinations, modules, old.format_1, old.moved), golden, number)
    return Verdict(new, tuple(alike), changed, tuple(uncovered), unexplained)


def _versions(old: Behaviours, golden: int, versions: Mapping[str, str], same: set[str]) -> tuple[tuple[Versions, ...], int]:
    """The combinations with VERSIONS among them, whose units SAME left the golden bytes, and the number of VERSIONS."""
    for number, item in enumerate(old.versions):
        if dict(item.packages) == dict(versions):
            return old.versions, number
    like = golden if old.versions else None
    return (*old.versions, Versions(dict(versions), like, tuple(sorted(same)) if old.versions else ())), len(old.versions)


def steps_of(unit: str) -> str:
    """Which steps of users the unit decides, in words."""
    kind, _, member = unit.partition(".")
    if not member:
        return f"every {kind} step"
    return f"every step with {member.replace('.', ' ')}" if kind not in KINDS else f"{kind} steps with {member.replace('.', ' ')}"


def report(verdict: Verdict) -> Mapping[str, Any]:
    """The verdict in words, for a person who decides whether to write it."""
    return {
        "alike": list(verdict.alike),
        "changed": {unit: list(steps) for unit, steps in verdict.changed.items()},
        "uncovered": list(verdict.uncovered),
        "unexplained": list(verdict.unexplained),
    }


def with_change(changelog: str, line: str) -> str:
    """CHANGELOG with LINE first under `### Changed` of what is unreleased, a section that it makes where there is none."""
    head, mark, rest = changelog.partition("## Unreleased\n")
    unreleased, following, released = rest.partition("\n## ")
    before, _, lines = unreleased.strip("\n").partition("### Changed\n\n")
    sections = [before.rstrip(), f"### Changed\n\n- {line}\n{lines}".rstrip()]
    return f"{head}{mark}\n" + "\n\n".join(section for section in sections if section) + f"\n{following}{released}"
