"""Resolves content addresses that users give by their first digits."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from engine.core.errors import UserError
from engine.core.graph import Step
from engine.dvc.dvcfile import Record
from engine.identity.provenance import Provenance, parse

if TYPE_CHECKING:
    from engine.dvc.store import Store

SHORTEST = 6
"""The minimum number of digits of an address; fewer are taken for a mistyped name."""
PROVENANCE = ".provenance.json"
_SHA256 = "sha256:"


def matching(target: str, addresses: Mapping[str, str]) -> list[str]:
    """The names in ADDRESSES (name to content address) whose address starts with TARGET, which may omit `sha256:`."""
    wanted = target.removeprefix(_SHA256)
    if len(wanted) < SHORTEST:
        return []
    return [name for name, address in addresses.items() if address.removeprefix(_SHA256).startswith(wanted)]


def only(target: str, addresses: Mapping[str, str]) -> str | None:
    """The one name whose address starts with TARGET, None if there is none; raises UserError if there are several."""
    found = matching(target, addresses)
    if len(found) < 2:
        return found[0] if found else None
    if len({addresses[name] for name in found}) > 1:
        raise UserError(f"content address {target} is ambiguous: {', '.join(found)}", hint="give more of its digits")
    raise UserError(f"content address {target} belongs to several steps: {', '.join(found)}", hint="give the name of one of them")


def of_steps(root: Path, steps: Iterable[Step]) -> dict[str, str]:
    """The content address of each built step in the workspace ROOT, by name, from the provenance next to its artifact."""
    paths = {step.name: root / step.provenance for step in steps}
    statements = {name: parse(path.read_bytes()) for name, path in paths.items() if path.exists()}
    return {name: statement.digest for name, statement in statements.items() if statement}


def provenance_of(run: Record, store: "Store") -> Provenance | None:
    """The provenance of a recorded run; None if the cache lacks it or holds a damaged file."""
    for path, entry in run.outputs.items():
        if path.endswith(PROVENANCE) and (data := store.read(entry.md5)) is not None:
            return parse(data)
    return None
