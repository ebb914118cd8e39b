"""The golden suite: one small workspace whose steps use every kind and every member of a family, and a digest of what each step leaves."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from http.server import ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

from engine.build.driver import dvc_environment
from engine.core.digests import canonical, digest, folder_digest
from engine.core.graph import ARTIFACTS
from engine.core.part import Part, is_resource
from engine.core.workspace import Workspace
from engine.dvc.hashing import Hashes
from engine.plan.project import Project
from stages.process.numerics import VARIABLES
from tests.stages.fetch.test_fetch_body import Hub
from tests.stages.generate.chat_server import running
from tests.stages.generate.hub_server import HubServer
from tests.support.warm import warm_python

ROOT = Path(__file__).parents[2]
SPECS = Path(__file__).parent / "workspace"
ENDPOINT = "http://endpoint.invalid/v1"
"""What stands in recorded recipes for the chat server on loopback, whose port differs from run to run."""

MKL = "COMPATIBLE"
"""The branch of MKL that computes the same on every maker's processors, whatever else a machine's environment says."""

UNFINISHED = ("data", "fetched")
"""The experiments of which only the rows are made, and a model fetched: nothing is trained."""

_SCRIPT = """
import json, sys, time
from pathlib import Path
asked = json.loads(sys.argv[1])
sys.path.insert(0, asked["code"])
if asked["resolve"]:
    from engine.plan.project import Project
    from engine.core.workspace import Workspace
    Project(Workspace.at(Path())).resolve()
from stages.runner import run_step
failed, seconds = {}, {}
for kind, name in asked["steps"]:
    started = time.monotonic()
    try:
        run_step(kind, name)
    except Exception as error:
        failed[name] = f"{type(error).__name__}: {error}"
    seconds[name] = time.monotonic() - started
Path(asked["report"]).write_text(json.dumps({"failed": failed, "seconds": seconds}))
"""


def given(value: Any) -> Any:
    """A recipe without what is as it is by default: a field that is added with a default asks for nothing else."""
    if isinstance(value, Part):
        fields = {name: info for name, info in type(value).model_fields.items() if not is_resource(info)}
        values = {name: getattr(value, name) for name in fields}
        return {
            name: given(item)
            for name, item in values.items()
            if name == "kind" or fields[name].is_required() or item != fields[name].get_default(call_default_factory=True)
        }
    if isinstance(value, Mapping):
        return {name: given(value[name]) for name in sorted(value)}
    return [given(item) for item in value] if isinstance(value, tuple) else value


@dataclass(frozen=True)
class Outcome:
    """What one step of the suite made of what."""

    read: str
    """Digest of the recipe and of the content of everything that the step reads."""
    left: str
    """Digest of the artifact, the metrics and the plot."""
    units: tuple[str, ...]
    """The units of code that decide the result."""


@dataclass(frozen=True)
class Suite:
    """A copy of the suite's workspace with servers to ask; its steps can be run with any copy of the code."""

    root: Path
    environment: Mapping[str, str]
    url: str

    @cached_property
    def project(self) -> Project:
        """The workspace, compiled anew by the code of this process."""
        return Project(Workspace.at(self.root))

    def steps(self) -> tuple[tuple[str, str], ...]:
        """Kind and name of every step that the suite runs, in order."""
        graph = self.project.graph
        unused = {f"{kind}-{name}" for kind in ("mix", "train", "evaluate") for name in UNFINISHED}
        found = []
        for step in graph:
            if any(producer in unused for producer in step.producers):
                unused.add(step.name)
            if step.name in unused or (step.kind_name == "tokenize" and step.name.endswith(("-unused", "-tiny"))):
                continue
            found.append((step.kind_name, step.name))
        return tuple(found)

    def resolve(self, code: Path = ROOT) -> None:
        """Compile and write the identities, as CODE says."""
        for verb in (("compile", "--force"), ("resolve",)):
            command = [sys.executable, "-m", "engine", *verb]
            subprocess.run(
                command, cwd=self.root, env=self.environment | {"PYTHONPATH": str(code)}, capture_output=True, text=True, check=True
            )

    def run(self, steps: Collection[tuple[str, str]], code: Path = ROOT, resolve: bool = False) -> dict[str, str]:
        """Run STEPS in their order with CODE, those that ask the hub in processes of their own; what failed, and why.

        RESOLVE: write the identities that CODE gives first.
        """
        failed: dict[str, str] = {}
        offline = [step for step in steps if not self._asks_hub(step[1])]
        fetched = [step for step in steps if step[0] == "fetch"]
        asking = [step for step in steps if step not in offline and step not in fetched]
        for python, group, more in (
            (Path(sys.executable), fetched, {"HF_ENDPOINT": self.environment["SUITE_MODELS"]}),
            (Path(sys.executable), asking, {"HF_ENDPOINT": self.environment["SUITE_HUB"]}),
            (warm_python(MKL), offline, {}),
        ):
            if not group:
                continue
            report = self.root / "report.json"
            asked = json.dumps({"code": str(code), "steps": group, "report": str(report), "resolve": resolve})
            command = [str(python), "-c", _SCRIPT, asked]
            done = subprocess.run(command, cwd=self.root, env={**self.environment, **more}, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stdout + done.stderr
            failed |= json.loads(report.read_text())["failed"]
        return failed

    def _asks_hub(self, name: str) -> bool:
        text = (self.root / ARTIFACTS / "identity" / f"{name}.json").read_text("utf-8")
        return '"kind": "hub"' in text or json.loads(text)["kind"] == "fetch"

    def outcome(self, name: str) -> Outcome:
        """What the step NAME read and left."""
        identity = json.loads((self.root / ARTIFACTS / "identity" / f"{name}.json").read_text("utf-8"))
        hashes, step = Hashes(self.root), self.project.graph[name]
        read = {role: entry.md5 for role, path in identity["inputs"].items() if (entry := hashes.entry(path))}
        recipe = json.loads(json.dumps(given(step.parameters)).replace(self.url, ENDPOINT))
        left = [folder_digest(self.root / ARTIFACTS / name)]
        for path in (self.root / place for place in (step.metrics, step.plots) if place):
            left += [digest(path.read_bytes())] if path.exists() else []
        return Outcome(digest(canonical([identity["kind"], recipe, read])), digest(canonical(left)), tuple(sorted(identity["code"])))


@contextmanager
def suite(folder: Path) -> Iterator[Suite]:
    """The suite's workspace, copied into FOLDER, with a chat server and a hub on loopback."""
    root = folder / "suite"
    shutil.copytree(SPECS, root)
    lines = "".join(json.dumps({"text": f"text {n}", "title": f"title {n}"}) + "\n" for n in range(30))
    hub = HubServer({"data/train.jsonl": lines.encode()}).start()
    models = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    Thread(target=models.serve_forever, daemon=True).start()
    with running() as server:
        for spec in (root / "specs").glob("*.toml"):
            spec.write_text(spec.read_text("utf-8").replace('"URL"', f'"{server.url}"'), "utf-8")
        environment: dict[str, Any] = {**dvc_environment(), "HF_HOME": str(folder / "home"), "SUITE_HUB": hub.url}
        environment["SUITE_MODELS"] = f"http://127.0.0.1:{models.server_port}"
        environment.pop("PYTHONPATH", None)
        environment = {name: value for name, value in environment.items() if name not in VARIABLES} | {"MKL_CBWR": MKL}
        os.makedirs(folder / "home", exist_ok=True)  # noqa: PTH103
        try:
            yield Suite(root, environment, server.url)
        finally:
            hub.shutdown()
            models.shutdown()
