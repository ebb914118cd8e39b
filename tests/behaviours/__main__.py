"""`make behaviours`: build the golden suite with the code as it is, and list what behaves alike in engine/behaviours.json."""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

from engine.behaviours import FILE, Behaviours
from tests.behaviours.listing import closures, judge, packages, report, steps_of, with_change
from tests.behaviours.suite import ROOT, suite

CHANGELOG = ROOT / "CHANGELOG.md"


def main() -> int:
    """0 when the file says what the suite says (`--check`), or was written."""
    parser = argparse.ArgumentParser(prog="make behaviours", description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare only; exit 1 where the file would change")
    parser.add_argument("--json", action="store_true", help="print the verdict as one JSON object")
    parser.add_argument("--change", default="", metavar="LINE", help="the changelog's line of what gets a new revision")
    parser.add_argument(
        "--versions-move-bytes", action="store_true", help="take over other bytes of unchanged code: they come from other package versions"
    )
    asked = parser.parse_args()
    old, started = Behaviours.of(ROOT), time.monotonic()
    with tempfile.TemporaryDirectory(prefix="behaviours-") as folder, suite(Path(folder)) as golden:
        golden.resolve()
        steps = golden.steps()
        print(f"building {len(steps)} steps of the golden suite", file=sys.stderr)
        if failed := golden.run(steps):
            print("\n".join(f"{name} failed: {why}" for name, why in failed.items()), file=sys.stderr)
            return 1
        outcomes = {name: golden.outcome(name) for _, name in steps}
    verdict = judge(old, closures(ROOT), outcomes, packages(), asked.change)
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
    if verdict.unexplained and not asked.versions_move_bytes:
        names = ", ".join(verdict.unexplained[:5])
        print(
            f"error: {len(verdict.unexplained)} steps left other bytes although their code is listed: {names}\n"
            "  hint: is this machine's numerics portable, and are the locked versions installed? "
            "Where new versions move bytes: --versions-move-bytes",
            file=sys.stderr,
        )
        return 1
    text = verdict.behaviours.text()
    current = (ROOT / FILE).read_text("utf-8") if (ROOT / FILE).exists() else ""
    if text == current:
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
    (ROOT / FILE).write_text(text, "utf-8")
    print(f"wrote {FILE}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
