"""Revisions of behaviour: states of the code, and versions of packages, that are known to produce the same bytes.

A *unit* is the granularity at which an identity covers code: the body of a kind (`train`) or a member of a family (`train.methods.lora`),
with all modules of this project that it imports. `behaviours.json` lists, for every unit, the digests of closures that are known to behave
the same, each with its revision. Only `make behaviours` writes it: it builds the golden suite with the current code and compares.
So moving a function, renaming a module or upgrading a package reruns nothing whose bytes stay the same, and unlisted code reruns.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engine.core.digests import canonical, digest
from engine.core.errors import Location, UserError

FILE = "engine/identity/behaviours.json"
"""Relative to the folder that holds the packages `engine` and `stages`."""

_PREFIX, _BODY = "stages.", ".body"

Code = int | Mapping[str, str]
"""What an identity records about a unit: its revision, or, if its code is not listed, the digest of every module in its closure."""


def unit_of(module: str) -> str:
    """The unit of MODULE: `train` for `stages.train.body`, `train.methods.lora` for `stages.train.methods.lora`."""
    return module.removeprefix(_PREFIX).removesuffix(_BODY)


def module_of(unit: str) -> str:
    """The module of a unit: the inverse of `unit_of`."""
    return f"{_PREFIX}{unit}" if "." in unit else f"{_PREFIX}{unit}{_BODY}"


def closure_digest(closure: Mapping[str, str]) -> str:
    """The digest of a whole closure, given as module to digest."""
    return digest(canonical(dict(closure)))


@dataclass(frozen=True)
class Unit:
    """The listed revisions of one unit."""

    revision: int
    """The revision of the code listed last."""
    closures: Mapping[str, int] = field(default_factory=dict)
    """Maps the digest of each listed closure to its revision."""
    changes: Mapping[str, str] = field(default_factory=dict)
    """The changelog line of each revision after the first."""


@dataclass(frozen=True)
class Versions:
    """A combination of package versions with which the golden suite was built."""

    packages: Mapping[str, str]
    like: int | None = None
    """Index of the earlier combination that this one was compared with; None for the first one."""
    units: tuple[str, ...] = ()
    """The units that produced the same bytes as with that combination."""


@dataclass(frozen=True)
class Behaviours:
    """The content of `behaviours.json`."""

    units: Mapping[str, Unit] = field(default_factory=dict)
    versions: tuple[Versions, ...] = ()
    modules: Mapping[str, str] = field(default_factory=dict)
    """The digest of every module of the code listed last, so that a plan can name modules edited since."""
    format_1: Mapping[str, str] = field(default_factory=dict)
    """Likewise for the last code that wrote identities of format 1; all its units have revision 1."""
    moved: Mapping[str, str] = field(default_factory=dict)
    """Renamed units, old name to new: their module was renamed or moved."""
    golden: str = ""
    """Digest of the record of the golden suite's results (tests/behaviours/golden.json), used only in the repository."""

    @classmethod
    def of(cls, code_root: Path) -> "Behaviours":
        """The behaviours listed for the code in CODE_ROOT; empty if the file does not exist."""
        path = code_root / FILE
        if not path.exists():
            return cls()
        try:
            content = json.loads(path.read_text("utf-8"))
        except ValueError as error:
            hint = "restore the file (after a merge conflict: from one side), then run: make behaviours"
            raise UserError(f"cannot read {path.name}: {error}", Location(str(path)), hint) from None
        return cls(
            {name: Unit(**unit) for name, unit in content["units"].items()},
            tuple(Versions(item["packages"], item["like"], tuple(item["units"])) for item in content["versions"]),
            content["modules"],
            content["format_1"],
            content["moved"],
            content["golden"],
        )

    def text(self) -> str:
        """The text of the file: sorted, one entry per line, for readable diffs in git."""
        content = {
            "format": 1,
            "units": {name: vars(unit) for name, unit in self.units.items()},
            "versions": [{"packages": item.packages, "like": item.like, "units": list(item.units)} for item in self.versions],
            "modules": self.modules,
            "format_1": self.format_1,
            "moved": self.moved,
            "golden": self.golden,
        }
        return json.dumps(content, sort_keys=True, indent=1, allow_nan=False) + "\n"

    def code(self, unit: str, closure: Mapping[str, str]) -> Code:
        """What an identity records about UNIT with this CLOSURE."""
        known = self.units.get(unit)
        revision = known.closures.get(closure_digest(closure)) if known else None
        return revision if revision is not None else dict(closure)

    def environment(self, versions: Mapping[str, str], code: Mapping[str, Code]) -> dict[str, str]:
        """The package versions that an identity records: those of the first combination that gives its CODE the same bytes as VERSIONS.

        CODE is what the identity records, by unit. For unlisted code, versions have not been compared, so VERSIONS are returned as is.
        """
        if not all(isinstance(found, int) for found in code.values()):
            return dict(versions)
        wanted = set(code)
        for item in self.versions:
            if all(item.packages.get(name) == version for name, version in versions.items()):
                while item.like is not None and wanted <= set(item.units) and versions.keys() <= self.versions[item.like].packages.keys():
                    item = self.versions[item.like]
                return {name: item.packages[name] for name in versions}
        return dict(versions)

    def listed(self, closure: Code) -> dict[str, str]:
        """The digests that the modules of CLOSURE had when the code was last listed; modules not listed then are omitted."""
        return {} if isinstance(closure, int) else {module: self.modules[module] for module in closure if module in self.modules}

    def current(self, identity: Mapping[str, Any], units: Iterable[str]) -> dict[str, Any]:
        """IDENTITY as today's code would write it for the same behaviour; UNITS are the step's current units.

        Makes identities comparable with current ones if they were written in format 1, or before their code or versions were listed.
        """
        code: Mapping[str, Any] = identity["code"]
        if identity["format"] not in (1, 2):
            return dict(identity)  # written by a later release, whose format is unknown here
        if identity["format"] == 1:
            alike = bool(self.format_1) and all(self.format_1.get(module) == found for module, found in code.items())
            # Format 1 lists the modules of all units together, so the units are taken from the current step.
            before = {new: old for old, new in self.moved.items()}
            code = {unit: 1 for unit in units if module_of(before.get(unit, unit)) in code} if alike else {"": code}
        else:
            named = {self.moved.get(unit, unit): found for unit, found in code.items()}
            code = {unit: self.code(unit, found) if isinstance(found, Mapping) else found for unit, found in named.items()}
        return {**identity, "format": 2, "code": code, "environment": self.environment(identity["environment"], code)}
