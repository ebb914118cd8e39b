"""What docs/reference/promises.md names is there: a promise whose test was renamed or removed is one that nothing shows."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
NAMED = re.compile(r"`([\w/.]*)(?:::(\w+))?`")


def named() -> list[tuple[str, str]]:
    """The files and tests that the cells of the right-hand column name; `::test` is one of the file before it."""
    found = []
    for line in (ROOT / "docs/reference/promises.md").read_text("utf-8").splitlines():
        file = ""
        for path, test in NAMED.findall(line.split("|")[2]) if line.startswith("| ") else ():
            file = path or file
            found.append((file, test))
    return found


def test_every_test_and_benchmark_that_shows_a_promise_is_there():
    everything = named()
    missing = [f"{file}::{test}" for file, test in everything if not _is_there(file, test)]
    assert not missing and len(everything) > 50, missing


def _is_there(file: str, test: str) -> bool:
    path = ROOT / file if file.startswith("benchmarks/") else ROOT / "tests" / file
    return path.is_file() and (not test or f"def {test}(" in path.read_text("utf-8"))


def test_every_promise_names_something():
    rows = [line for line in (ROOT / "docs/reference/promises.md").read_text("utf-8").splitlines() if line.startswith("| ")]
    promises = [line for line in rows if "| promise |" not in line]
    assert promises and all(NAMED.search(line.split("|")[2]) for line in promises)
