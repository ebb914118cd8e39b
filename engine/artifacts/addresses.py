"""Content addresses as people give them, by their first digits: the one place that says what such a beginning means."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from engine.dvc.dvcfile import Record
from engine.core.errors import UserError
from engine.core.graph import Step
from engine.identity.provenance import Provenance, parse
from engine.dvc.store import Store

SHORTEST = 6
"""So many digits are an address at least; fewer are taken for a name that was mistyped."""
PROVENANCE = ".provenance.json"
_SHA256 = "sha256:"


def matching(target: str, addresses: Mapping[str, str]) -> list[str]:
    """The names in ADDRESSES (name to content address) whose address begins with TARGET, which may leave out `sha256:`."""
    wanted = target.removeprefix(_SHA256)
    if len(wanted) < SHORTEST:
        return []
    return [name for name, address in addresses.items() if address.removeprefix(_SHA256).startswith(wanted)]


def only(target: str, addresses: Mapping[str, str]) -> str | None:
    """The one name whose address begins with TARGET, None where there is none; raises UserError where there are several."""
    found = matching(target, addresses)
    if len(found) < 2:
        return found[0] if found else None
    if len({addresses[name] for name in found}) > 1:
        raise UserError(f"{target} is the beginning of several content addresses: {', '.join(found)}", hint="give more of its digits")
    raise UserError(f"{target} is the content address of several: {', '.join(found)}", hint="give the name of the one that is meant")


def of_steps(root: Path, steps: Iterable[Step]) -> dict[str, str]:
    """The content address of each step that is built in the workspace ROOT, by name, from the provenance beside its artifact."""
    paths = {step.name: root / step.provenance for step in steps}
    statements = {name: parse(path.read_bytes()) for name, path in paths.items() if path.exists()}
    return {name: statement.digest for name, statement in statements.items() if statement}


def provenance_of(run: Record, store: Store) -> Provenance | None:
    """What a recorded run says of itself; None where the cache does not hold that, or holds a damaged file, which names no artifact."""
    for path, entry in run.outputs.items():
        if path.endswith(PROVENANCE) and (data := store.read(entry.md5)) is not None:
            return parse(data)
    return None
