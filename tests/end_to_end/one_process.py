"""All steps of a workspace in one process: what `engine build` makes, without its records and without importing torch once a step."""

import json
import subprocess

from engine.build.driver import dvc_environment
from engine.core.workspace import Workspace
from engine.plan.project import Project
from tests.end_to_end.conftest import Place
from tests.support.warm import warm_python

_SCRIPT = """
import json, sys
from engine.core.errors import UserError
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
    steps = Project(Workspace.at(place.root)).graph
    todo = [(step.kind_name, step.name) for step in steps if not kinds or step.kind_name in kinds]
    command = [warm_python(), "-c", _SCRIPT, json.dumps(todo)]
    done = subprocess.run(command, cwd=place.root, env=dvc_environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    said: dict[str, str] = json.loads(done.stdout)
    return said


def build_in_one_process(place: Place) -> None:
    """Build every step."""
    assert errors_of(place) == {}


_BUILD = """
import sys, time
from engine.build.executors import local
from engine.cli.main import main
from engine.core.errors import UserError
from engine.build.executors.base import Finished
from stages.runner import run_step

class Here:
    ended = []
    detaches = keeps_going = False

    def free(self, step):
        return not self.ended

    def start(self, step, read):
        begun, status = time.monotonic(), 0
        try:
            run_step(step.kind_name, step.name)
        except UserError as error:
            print(error, file=sys.stderr)
            status = 1
        self.ended = [Finished(step, status, time.monotonic() - begun)]

    def launch(self):
        pass

    def wait(self):
        ended, self.ended = self.ended, []
        return ended

    def stop(self, asked=True):
        return self.wait()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

local.Local = lambda *_, **__: Here()
main()
"""


def build_recorded(place: Place, *targets: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """`engine build TARGETS`, records and all, but for its steps, which run in the build's own process: torch is imported once."""
    command = [warm_python(), "-c", _BUILD, "build", *targets]
    done = subprocess.run(command, cwd=place.root, env=dvc_environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0 or not check, done.stdout + done.stderr
    return done
