"""Says whether the quickstart's digests are those of the README's table: `make quickstart` ends with it.

    python -m benchmarks.quickstart [WORKSPACE]

The README's table is the only copy of the digests.
"""

import re
import sys
from collections.abc import Mapping
from pathlib import Path

from engine.artifacts.addresses import PROVENANCE
from engine.core.graph import ARTIFACTS
from engine.identity.provenance import parse

ROOT = Path(__file__).parents[1]
_ROW = re.compile(r"^ +(?P<experiment>[a-z]\w*)  +.*  (?:full|lora)  +(?P<digest>[0-9a-f]{12})  ", re.MULTILINE)


def stated(readme: str) -> dict[str, str]:
    """The digest of each experiment in the table of the README's text; raises ValueError where there is no such table."""
    found = {row["experiment"]: row["digest"] for row in _ROW.finditer(readme)}
    if not found:
        raise ValueError("README.md has no table of experiments with digests of 12 hex digits")
    return found


def built(root: Path, experiments: Mapping[str, str]) -> dict[str, str]:
    """The digest of each of EXPERIMENTS that is built in the workspace ROOT, as many digits as the README gives."""
    paths = {name: root / ARTIFACTS / f"train-{name}{PROVENANCE}" for name in experiments}
    statements = {name: parse(path.read_bytes()) for name, path in paths.items() if path.exists()}
    return {name: statement.digest.removeprefix("sha256:")[: len(experiments[name])] for name, statement in statements.items() if statement}


def verdict(expected: Mapping[str, str], found: Mapping[str, str]) -> str:
    """One line where all digests are as EXPECTED, else one more for each that is not."""
    other = [name for name in expected if found.get(name) != expected[name]]
    if not other:
        return f"digests: all {len(expected)} are those of the README"
    lines = [f"digests: {len(other)} of {len(expected)} are not those of the README"]
    lines += [f"  {name}: {found.get(name, 'not built')}, the README has {expected[name]}" for name in other]
    return "\n".join([*lines, "  docs/reference/numerics.md says what they depend on; edited specs or code give other digests too"])


def main(arguments: list[str]) -> int:
    """Print the verdict on the workspace that ARGUMENTS name, or on this repository; the exit code."""
    expected = stated((ROOT / "README.md").read_text("utf-8"))
    print(verdict(expected, built(Path(arguments[0]) if arguments else ROOT, expected)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
