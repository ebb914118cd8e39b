"""Revisions of behaviour: which states of the code, and which versions of packages, are known to leave the same bytes.

A *unit* is what an identity names of the code: the body of a kind (`train`) or the member of a family (`train.methods.lora`), each with
all modules of ours that it imports. `behaviours.json` lists, for every unit, the digests of the closures that are known to behave alike and
the revision that they share. It is written by `make behaviours` alone, which builds the golden suite with the code as it is and compares.
So moving a function, renaming a module or upgrading reruns nothing that would leave the same bytes, and what is not listed reruns.
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
"""What an identity says of a unit: its revision, or, where its code is not listed, the digest of every module of its closure."""


def unit_of(module: str) -> str:
    """The name of the unit that MODULE is: `stages.train.body` is `train`, `stages.train.methods.lora` is `train.methods.lora`."""
    return module.removeprefix(_PREFIX).removesuffix(_BODY)


def module_of(unit: str) -> str:
    """The module of a unit: the reverse of `unit_of`."""
    return f"{_PREFIX}{unit}" if "." in unit else f"{_PREFIX}{unit}{_BODY}"


def closure_digest(closure: Mapping[str, str]) -> str:
    """One digest of a closure (module to digest)."""
    return digest(canonical(dict(closure)))


@dataclass(frozen=True)
class Unit:
    """What is known of one unit."""

    revision: int
    """The revision of the code that was listed last."""
    closures: Mapping[str, int] = field(default_factory=dict)
    """The digests of closures, each with the revision that it has."""
    changes: Mapping[str, str] = field(default_factory=dict)
    """The line of the changelog that each later revision came with."""


@dataclass(frozen=True)
class Versions:
    """Versions of packages with which the golden suite was built."""

    packages: Mapping[str, str]
    like: int | None = None
    """Number of the earlier combination that these were compared with; None for the first one."""
    units: tuple[str, ...] = ()
    """The units that left the same bytes as with that combination."""


@dataclass(frozen=True)
class Behaviours:
    """The content of `behaviours.json`."""

    units: Mapping[str, Unit] = field(default_factory=dict)
    versions: tuple[Versions, ...] = ()
    modules: Mapping[str, str] = field(default_factory=dict)
    """Every module of the code that was listed last, with its digest: so that a plan can name the one that was edited since."""
    format_1: Mapping[str, str] = field(default_factory=dict)
    """The same of the last code that wrote identities of format 1, all of whose units have revision 1."""
    moved: Mapping[str, str] = field(default_factory=dict)
    """Units that got another name, old to new: their module was renamed or moved."""
    golden: str = ""
    """Digest of the record of what the golden suite left (tests/behaviours/golden.json), which only the repository needs."""

    @classmethod
    def of(cls, code_root: Path) -> "Behaviours":
        """What is listed for the code in CODE_ROOT; nothing where there is no such file."""
        path = code_root / FILE
        if not path.exists():
            return cls()
        try:
            content = json.loads(path.read_text("utf-8"))
        except ValueError as error:
            hint = "take the file of one side, then run: make behaviours"
            raise UserError(f"it cannot be read: {error}", Location(str(path)), hint) from None
        return cls(
            {name: Unit(**unit) for name, unit in content["units"].items()},
            tuple(Versions(item["packages"], item["like"], tuple(item["units"])) for item in content["versions"]),
            content["modules"],
            content["format_1"],
            content["moved"],
            content["golden"],
        )

    def text(self) -> str:
        """The file's text: sorted, one line an entry, so that a change reads well in git."""
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
        """What an identity says of UNIT whose closure is CLOSURE."""
        known = self.units.get(unit)
        revision = known.closures.get(closure_digest(closure)) if known else None
        return revision if revision is not None else dict(closure)

    def environment(self, versions: Mapping[str, str], code: Mapping[str, Code]) -> dict[str, str]:
        """What an identity says of the VERSIONS of a step's packages: those of the first combination that left the same bytes for its CODE.

        CODE is what the identity says of it, by unit. Of code that is not listed nobody has compared versions.
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
        """The modules of CLOSURE with the digests that they had when the code was listed last; those that were not there are left out."""
        return {} if isinstance(closure, int) else {module: self.modules[module] for module in closure if module in self.modules}

    def current(self, identity: Mapping[str, Any], units: Iterable[str]) -> dict[str, Any]:
        """IDENTITY as it would be written today for the same behaviour; UNITS are those that the step has today.

        An identity that was written before its code or versions were listed, or in format 1, then equals the one of today.
        """
        code: Mapping[str, Any] = identity["code"]
        if identity["format"] not in (1, 2):
            return dict(identity)  # of a later release: only that one knows what it means
        if identity["format"] == 1:
            alike = bool(self.format_1) and all(self.format_1.get(module) == found for module, found in code.items())
            # Format 1 named the modules of all units together, so that only the step of today says which units these were.
            before = {new: old for old, new in self.moved.items()}
            code = {unit: 1 for unit in units if module_of(before.get(unit, unit)) in code} if alike else {"": code}
        else:
            named = {self.moved.get(unit, unit): found for unit, found in code.items()}
            code = {unit: self.code(unit, found) if isinstance(found, Mapping) else found for unit, found in named.items()}
        return {**identity, "format": 2, "code": code, "environment": self.environment(identity["environment"], code)}
