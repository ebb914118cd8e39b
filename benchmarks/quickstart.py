"""Says whether the quickstart's digests are the published ones: `make quickstart` ends with it.

    python -m benchmarks.quickstart [WORKSPACE]

The README's table is the only copy of the digests on AMD's processors, that of docs/reference/numerics.md of those on Intel's.
"""

import re
import sys
from collections.abc import Mapping
from pathlib import Path

from engine.artifacts.addresses import PROVENANCE
from engine.core.graph import ARTIFACTS
from engine.identity.provenance import parse

ROOT = Path(__file__).parents[1]
README, NUMERICS = "README.md", "docs/reference/numerics.md"
_ROWS = {
    README: re.compile(r"^ +(?P<experiment>[a-z]\w*)  +.*  (?:full|lora)  +(?P<digest>[0-9a-f]{12})  ", re.MULTILINE),
    NUMERICS: re.compile(r"^\| (?P<experiment>[a-z]\w*) \| (?P<digest>[0-9a-f]{12}) \|$", re.MULTILINE),
}


def stated(page: str, text: str | None = None) -> dict[str, str]:
    """The digest of each experiment in the table of PAGE (README or NUMERICS), or of its TEXT; raises ValueError without such a table."""
    text = (ROOT / page).read_text("utf-8") if text is None else text
    found = {row["experiment"]: row["digest"] for row in _ROWS[page].finditer(text)}
    if not found:
        raise ValueError(f"{page} has no table of experiments with digests of 12 hex digits")
    return found


def built(root: Path, experiments: Mapping[str, str]) -> dict[str, str]:
    """The digest of each of EXPERIMENTS that is built in the workspace ROOT, as many digits as the README gives."""
    paths = {name: root / ARTIFACTS / f"train-{name}{PROVENANCE}" for name in experiments}
    statements = {name: parse(path.read_bytes()) for name, path in paths.items() if path.exists()}
    return {name: statement.digest.removeprefix("sha256:")[: len(experiments[name])] for name, statement in statements.items() if statement}


def verdict(readme: Mapping[str, str], intel: Mapping[str, str], found: Mapping[str, str]) -> str:
    """One line where all digests FOUND are those of the README or of Intel's processors, else one more for each that is not."""
    if found == readme:
        return f"digests: all {len(readme)} are those of the README"
    if found == intel:
        return f"digests: all {len(intel)} are those of Intel processors ({NUMERICS}); the README has those of AMD processors"
    other = [name for name in readme if found.get(name) != readme[name]]
    lines = [f"digests: {len(other)} of {len(readme)} are not those of the README"]
    lines += [f"  {name}: {found.get(name, 'not built')}, the README has {readme[name]}" for name in other]
    return "\n".join([*lines, f"  {NUMERICS} says what they depend on; edited specs or code give other digests too"])


def main(arguments: list[str]) -> int:
    """Print the verdict on the workspace that ARGUMENTS name, or on this repository; the exit code."""
    readme = stated(README)
    print(verdict(readme, stated(NUMERICS), built(Path(arguments[0]) if arguments else ROOT, readme)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
