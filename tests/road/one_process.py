"""All steps of a workspace in one process: what `engine build` makes, without its records and without importing torch once a step."""

import json
import subprocess
import sys

from engine.build import dvc_environment
from tests.road.conftest import Place

_SCRIPT = """
import json, sys
from engine.errors import UserError
from stages.runner import run_step
said = {}
for kind, name in json.loads(sys.argv[1]):
    try:
        run_step(kind, name)
    except UserError as error:
        said[name] = str(error)
print(json.dumps(said))
"""


def errors_of(place: Place, *kinds: str) -> dict[str, str]:
    """Compile, resolve, and run every step (of KINDS, where any are given) in its order; what those say that cannot be built."""
    place.run("engine", "compile")
    place.run("engine", "resolve")
    steps = json.loads(place.run("engine", "plan", "--json", check=False).stdout)["steps"]
    todo = [(step["kind"], step["name"]) for step in steps if step["kind"] in kinds or (not kinds and step["kind"] != "resolve")]
    command = [sys.executable, "-c", _SCRIPT, json.dumps(todo)]
    done = subprocess.run(command, cwd=place.root, env=dvc_environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    said: dict[str, str] = json.loads(done.stdout)
    return said


def build_in_one_process(place: Place) -> None:
    """Build every step."""
    assert errors_of(place) == {}
