"""A Slurm cluster of several nodes on this machine: munged, slurmctld and a slurmd for each node, with files and ports of their own."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scancel", "scontrol")


def obstacle() -> str | None:
    """Why there can be no cluster here; None if there can."""
    search = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin"])
    missing = [program for program in PROGRAMS if shutil.which(program, path=search) is None]
    if missing:
        return f"{', '.join(missing)} not found (Debian's packages slurm-wlm and munge)"
    return None if os.geteuid() == 0 else "Slurm's daemons need root here"


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


@dataclass
class SlurmCluster:
    """A cluster below FOLDER with nodes n1, n2, ..."""

    folder: Path
    nodes: int = 3
    processes: dict[str, "subprocess.Popen[bytes]"] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        """For Slurm's commands."""
        return os.environ | {"SLURM_CONF": str(self.folder / "slurm.conf")}

    def start(self) -> "SlurmCluster":
        for name in ("state", "spool", "log", "munge"):
            (self.folder / name).mkdir(parents=True)
        self.folder.chmod(0o755)
        key = self.folder / "munge" / "key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o400)
        controller, *ports = free_ports(1 + self.nodes)
        nodes = "\n".join(
            f"NodeName=n{n} NodeHostname=localhost NodeAddr=127.0.0.1 Port={port} CPUs=2 RealMemory=8000" for n, port in enumerate(ports, 1)
        )
        (self.folder / "slurm.conf").write_text(
            f"""ClusterName=test
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort={controller}
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={self.folder}/munge/socket
SlurmUser=root
SlurmdUser=root
StateSaveLocation={self.folder}/state
SlurmdSpoolDir={self.folder}/spool/%n
SlurmctldPidFile={self.folder}/slurmctld.pid
SlurmdPidFile={self.folder}/%n.pid
SlurmctldLogFile={self.folder}/log/slurmctld
SlurmdLogFile={self.folder}/log/%n
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
ReturnToService=2
SchedulerType=sched/builtin
SchedulerParameters=batch_sched_delay=0,sched_interval=1
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
DefMemPerCPU=100
SlurmdParameters=config_overrides
SlurmdTimeout=10
SlurmctldTimeout=10
KillWait=10
MinJobAge=5
JobRequeue=1
JobCompType=jobcomp/filetxt
JobCompLoc={self.folder}/completed
{nodes}
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""
        )
        munge = self.folder / "munge"
        files = [
            f"--{name}={munge / value}"
            for name, value in {"socket": "socket", "key-file": "key", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}.items()
        ]
        self._run("munged", ["munged", "--foreground", "--force", *files])
        self._until(lambda: (munge / "socket").exists(), "munged")
        self.start_controller()
        for n in range(1, self.nodes + 1):
            self.start_node(f"n{n}")
        self._until(lambda: self.command("sinfo", "--noheader", "--format=%T").split() == ["idle"], "the nodes")
        return self

    def start_controller(self) -> None:
        self._run("slurmctld", ["slurmctld", "-D"])

    def start_node(self, name: str) -> None:
        self._run(name, ["slurmd", "-D", "-N", name])

    def kill(self, name: str) -> None:
        """SIGKILL to a daemon, and for a node to everything that it has started."""
        process = self.processes.pop(name)
        process.kill()
        process.wait()
        for child in self._jobs_of(name):
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)

    def _jobs_of(self, node: str) -> list[int]:
        """Processes of a node's jobs, which are no children of its slurmd, by the environment that Slurm gives them."""
        found = []
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                environment = (entry / "environ").read_bytes().split(b"\0") if entry.name.isdecimal() else []
                ours = f"SLURM_CONF={self.folder / 'slurm.conf'}".encode()
                if f"SLURMD_NODENAME={node}".encode() in environment and ours in environment:
                    found.append(int(entry.name))
        return found

    def command(self, *words: str) -> str:
        done = subprocess.run(words, env=self.environment, capture_output=True, text=True, check=False)
        return done.stdout

    def completed(self) -> str:
        """A line for each job, and each task of an array, that has ended."""
        return (self.folder / "completed").read_text()

    def _run(self, name: str, command: list[str]) -> None:
        environment = self.environment | {"PATH": os.pathsep.join([os.environ["PATH"], "/usr/sbin"])}
        log = (self.folder / "log" / f"{name}.out").open("ab")
        self.processes[name] = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)

    def _until(self, holds, what: str, seconds: float = 60.0) -> None:
        deadline = time.monotonic() + seconds
        while not holds():
            assert time.monotonic() < deadline, f"{what} did not start: {self.logs()}"
            time.sleep(0.1)

    def logs(self) -> str:
        return "\n".join(f"{path.name}:\n{path.read_text(errors='replace')[-1500:]}" for path in sorted((self.folder / "log").iterdir()))

    def stop(self) -> None:
        for name in [*self.processes][::-1]:
            process = self.processes.pop(name)
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
