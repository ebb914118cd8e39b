"""Ray: each step is a task with resources on a cluster that exists (https://docs.ray.io/en/latest/ray-core/tasks.html)."""

import contextlib
import os
import subprocess
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from engine.build.executors.cluster import JobEnd, Needs, checked
from engine.core.errors import UserError

_GRACE_SECONDS = 30.0
"""How long trainings have to save their state when the build leaves the cluster."""
_OUTPUT_BYTES = 4000


@dataclass
class Ray:
    """Tasks of the Ray cluster at ADDRESS."""

    address: str
    name: str = "ray"
    ends_with_build: bool = True
    _tasks: dict[str, Any] = field(default_factory=dict)
    """Tasks that were submitted here, by id."""
    _begun: bool = False

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> Self:
        """From `address`; raises UserError without the package, or without the cluster."""
        given = checked(settings, "ray", {"address": str})
        try:
            import ray
        except ImportError:
            raise UserError("the executor ray needs the package ray", hint="run: pip install 'adapterbuild[ray]'") from None
        address = given.get("address", "auto")
        try:
            # Without its own copy of the workspace: the store is where content comes from.
            ray.init(address=address, log_to_driver=False, logging_level="ERROR", runtime_env={})
        except (ConnectionError, RuntimeError, ValueError) as error:
            hint = "start one: ray start --head; or set address in [tool.adapterbuild.executor]"
            raise UserError(f"no Ray cluster at {address}: {' '.join(str(error).split())[:200]}", hint=hint) from None
        return cls(address, _begun=True)

    def refusal(self, needs: Needs) -> str | None:
        """Compared with each node's resources."""
        import ray

        asked = {"CPU": needs.cores, "GPU": needs.devices, "memory": needs.memory}
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        if any(all(node.get(name, 0) >= value for name, value in asked.items()) for node in nodes):
            return None
        told = ", ".join(f"{value} {name}" for name, value in asked.items() if value)
        most = "; ".join(", ".join(f"{node.get(name, 0):g} {name}" for name in asked) for node in nodes)
        return f"no node of the Ray cluster has {told} (they have: {most})"

    def submit(self, label: str, command: Sequence[str], needs: Needs) -> str:
        """A task that runs COMMAND and ends it with SIGTERM where it is cancelled."""
        import ray

        # A node that dies costs this attempt: the build starts the next one.
        options = {"num_cpus": needs.cores, "num_gpus": needs.devices, "max_retries": 0, "name": label}
        options |= {"memory": needs.memory} if needs.memory else {}
        task = ray.remote(**options)(_run).remote(list(command))
        self._tasks[task.hex()] = task
        return str(task.hex())

    def states(self, ids: Iterable[str]) -> Mapping[str, str]:
        """Tasks of this build that have not ended; a task ends with the build that submitted it."""
        import ray

        wanted = {self._tasks[number]: number for number in ids if number in self._tasks}
        _, running = ray.wait(list(wanted), num_returns=len(wanted), timeout=0, fetch_local=False) if wanted else ([], [])
        return {wanted[task]: "submitted" for task in running}

    def explain(self, id: str) -> JobEnd | None:
        """From the task: the exit code and the output of its command, or the error that ended it."""
        import ray

        if id not in self._tasks:
            return None
        try:
            status, said = ray.get(self._tasks[id], timeout=60)
        except ray.exceptions.GetTimeoutError:
            return None
        except Exception as error:
            # Ray raises what the task has raised, or says what became of its process.
            text = " ".join(str(error).split())
            if "ModuleNotFoundError" in text or "No module named" in text:
                why = "a Ray worker runs in an environment without adapterbuild, or with another version"
                return JobEnd(why, said=f"ModuleNotFoundError: {text[-500:]}")
            return JobEnd(f"{type(error).__name__}: {text[:300]}")
        return JobEnd(f"exit code {status}", status, said)

    def cancel(self, ids: Iterable[str]) -> None:
        """KeyboardInterrupt in the task, which ends its command with SIGTERM."""
        import ray

        for number in ids:
            if number in self._tasks:
                ray.cancel(self._tasks[number], force=False)

    def close(self) -> None:
        """Leave the cluster, which ends the tasks that are left; trainings save their state first."""
        if self._begun:
            import ray

            if left := [*self.states(self._tasks)]:
                self.cancel(left)
                ray.wait([self._tasks[number] for number in left], num_returns=len(left), timeout=_GRACE_SECONDS, fetch_local=False)
            ray.shutdown()
            self._begun = False


def _run(command: list[str]) -> tuple[int, str]:
    """Run COMMAND on a node; returns its exit status, 127 if the node lacks it, and the end of what it has written."""
    # Ray starts its workers with signals and variables of its own.
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "PYTHONPATH"))}
    environment.pop("OMP_NUM_THREADS", None)
    with tempfile.TemporaryFile() as output:
        try:
            process = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
        except (FileNotFoundError, PermissionError) as error:
            return 127, str(error)
        try:
            status = process.wait()
        except BaseException:
            process.terminate()
            # Ray may interrupt more than once, and the command needs its time to save its state.
            while process.poll() is None:
                with contextlib.suppress(KeyboardInterrupt):
                    process.wait()
            raise
        output.seek(max(0, output.seek(0, os.SEEK_END) - _OUTPUT_BYTES))
        return status, output.read().decode(errors="replace")
