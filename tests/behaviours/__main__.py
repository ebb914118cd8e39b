"""`make behaviours`: build the golden suite with the code as it is, and list what behaves alike in engine/identity/behaviours.json."""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

from engine.identity.behaviours import FILE
from tests.behaviours.listing import Listing, closures, judge, packages, report, steps_of, with_change
from tests.behaviours.suite import ROOT, suite

CHANGELOG = ROOT / "CHANGELOG.md"


def main() -> int:
    """0 when the file says what the suite says (`--check`), or was written."""
    parser = argparse.ArgumentParser(prog="make behaviours", description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare only; exit 1 where the file would change")
    parser.add_argument("--json", action="store_true", help="print the verdict as one JSON object")
    parser.add_argument("--change", default="", metavar="LINE", help="the changelog's line of what gets a new revision")
    parser.add_argument("--raise", dest="raised", action="append", default=[], metavar="UNIT", help="unit that gets a new revision anyway")
    parser.add_argument(
        "--cause",
        action="append",
        default=[],
        metavar="UNIT",
        help="the unit in which the edit changes behaviour, where others import the edited module too: these keep their revisions if the "
        "suite shows them alike",
    )
    parser.add_argument(
        "--versions-move-bytes", action="store_true", help="take over other bytes of unchanged code: they come from other package versions"
    )
    parser.add_argument(
        "--suite-changed", action="store_true", help="take over other bytes of unchanged code and versions: the suite builds something else"
    )
    asked = parser.parse_args()
    old, code, versions, started = Listing.of(ROOT), closures(ROOT), packages(), time.monotonic()
    if unknown := {*asked.raised, *asked.cause} - code.keys():
        parser.error(f"no unit {', '.join(sorted(unknown))}")
    versions_listed = any(dict(item.packages) == versions for item in old.behaviours.versions)
    if asked.versions_move_bytes and versions_listed:
        parser.error("these versions are listed: other bytes do not come from them")
    if asked.suite_changed and not (versions_listed and all(isinstance(old.behaviours.code(*unit), int) for unit in code.items())):
        parser.error("the suite may change only while code and versions are as listed: else nobody knows what moved the bytes")
    with tempfile.TemporaryDirectory(prefix="behaviours-") as folder, suite(Path(folder)) as golden:
        golden.resolve()
        steps = golden.steps()
        print(f"building {len(steps)} steps of the golden suite", file=sys.stderr)
        if failed := golden.run(steps):
            print("\n".join(f"{name} failed: {why}" for name, why in failed.items()), file=sys.stderr)
            return 1
        outcomes = {name: golden.outcome(name) for _, name in steps}
    verdict = judge(old, code, outcomes, versions, asked.change, asked.raised, asked.cause)
    print(f"built in {time.monotonic() - started:.0f} s", file=sys.stderr)
    if asked.json:
        print(json.dumps(report(verdict)))
    for unit in verdict.alike:
        print(f"alike    {unit}  keeps revision {verdict.behaviours.units[unit].revision}", file=sys.stderr)
    for unit, names in verdict.changed.items():
        revision = verdict.behaviours.units[unit].revision
        print(f"changed  {unit}  gets revision {revision}: {steps_of(unit)} will run again ({', '.join(names[:3])})", file=sys.stderr)
    for unit in verdict.uncovered:
        print(f"uncovered  {unit}  is never listed: no step of the suite runs it", file=sys.stderr)
    if verdict.unexplained and not (asked.versions_move_bytes or asked.suite_changed):
        names = ", ".join(verdict.unexplained[:5])
        print(
            f"error: {len(verdict.unexplained)} steps left other bytes although their code is listed: {names}\n"
            "  hint: is this machine's numerics portable, and are the locked versions installed? "
            "Where new versions move bytes: --versions-move-bytes; where the suite itself was changed: --suite-changed",
            file=sys.stderr,
        )
        return 1
    texts = verdict.listing.files()
    if all((ROOT / name).read_text("utf-8") == text for name, text in texts.items()):
        print(f"{FILE} is up to date", file=sys.stderr)
        return 0
    if asked.check:
        print(f"error: {FILE} is stale\n  hint: run: make behaviours", file=sys.stderr)
        return 1
    if verdict.changed and not asked.change:
        print(
            'error: new revisions need a line for the changelog\n  hint: make behaviours CHANGE="what users should know"', file=sys.stderr
        )
        return 1
    if asked.change and asked.change not in CHANGELOG.read_text("utf-8"):
        CHANGELOG.write_text(with_change(CHANGELOG.read_text("utf-8"), asked.change), "utf-8")
    for name, text in texts.items():
        (ROOT / name).write_text(text, "utf-8")
    print(f"wrote {FILE}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
