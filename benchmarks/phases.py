"""Times the phases of a plan inside one process: `python phases.py FOLDER` prints their seconds as JSON, cleared of imports."""

import json
import sys
import time
from pathlib import Path

from engine.core.workspace import Workspace
from engine.plan.project import Project


def phases(root: Path) -> dict[str, float]:
    """The seconds of each phase of a plan of the workspace ROOT."""
    project = Project(Workspace.at(root))
    found = {}
    for name, work in (
        ("specs", lambda: project.specs),
        ("graph", lambda: project.graph),
        ("identities", lambda: project.identities),
        ("decisions", project.plan),
    ):
        start = time.perf_counter()
        work()
        found[name] = time.perf_counter() - start
    return found


if __name__ == "__main__":
    print(json.dumps(phases(Path(sys.argv[1]))))
