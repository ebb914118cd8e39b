"""Portable numerics: a step's process computes the same bits on every x86-64 processor with AVX2 of one maker, whatever its cores.

Two things move the last bits of a sum: the instructions that a library takes because this processor has them, and into how many parts it
cuts the work because this machine has so many cores. `begin` fixes the first, by variables that libraries read when they are loaded or
first used; `divide` fixes the second, by the size of the model and nothing else. Both belong to the process that runs a step: the results
of library code are left alone. Nothing here imports torch or numpy.
"""

import fcntl
import os
import platform
import sys
import tempfile
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import IO, Any, Literal

Numerics = Literal["portable", "native"]

MODE = "ADAPTERBUILD_NUMERICS"
"""The variable by which a step's process tells its own children (torchrun's workers) what was asked for."""

VARIABLES = {
    # torch's own kernels: https://docs.pytorch.org/docs/stable/backends.html
    "ATEN_CPU_CAPABILITY": "avx2",
    # oneDNN: https://uxlfoundation.github.io/oneDNN/dev_guide_cpu_dispatcher_control.html
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    # MKL's conditional numerical reproducibility. With a fixed number of threads, as here, `,STRICT` adds nothing on Intel's processors;
    # on AMD's MKL reads AVX2 as AUTO, and small matrices depend on the number of threads even with STRICT.
    "MKL_CBWR": "AVX2",
    # numpy's BLAS, and the functions that numpy has in versions for AVX-512.
    "OPENBLAS_CORETYPE": "Haswell",
    "OPENBLAS_NUM_THREADS": "1",
    "NPY_DISABLE_CPU_FEATURES": "X86_V4 AVX512_ICL AVX512_SPR",
}
"""What makes libraries compute as on a processor that has AVX2 and no more."""

_UNFIT = ("MKL_ENABLE_INSTRUCTIONS", "OMP_DYNAMIC", "OMP_THREAD_LIMIT")
"""Variables that would take back what the others fix, or the number of threads; nobody sets them here."""

HANDED_ON = (MODE, *VARIABLES)
"""The variables that processes of this step on other hosts need too."""

SMALL, LARGE, LARGE_FROM = 2, 8, 10_000_000
"""Into how many parts work is cut: for models below so many parameters, and for others. They decide bits, so that an edit changes results.
More parts than cores cost little, since threads sleep while they wait; with fewer, cores lie idle."""

_claims: list[IO[str]] = []
"""The files by which this process has claimed cores; held until it ends."""


def begin(asked: Numerics) -> None:
    """Set up this process, which is to run a step, as ASKED; to be called before torch or numpy is imported.

    A variable that the user has set stays as it is. What keeps the result from being portable is said on stderr, once in a process.
    """
    os.environ[MODE] = asked
    if asked == "native":
        return
    if reason := obstacle():
        _say(f"{reason}: the result is the same on machines like this one, and equal up to rounding on others")
        return
    for name, value in VARIABLES.items():
        if os.environ.setdefault(name, value) != value:
            _say(f"{name}={os.environ[name]} is set in the environment and stays; portable numerics would set {value}")
    for name in _UNFIT:
        if name in os.environ:
            _say(f"{name}={os.environ[name]} is set in the environment and may change the result's last bits; unset it")


def is_portable() -> bool:
    """Whether this process has begun with portable numerics, and can have them."""
    return os.environ.get(MODE) == "portable" and obstacle() is None


def obstacle() -> str | None:
    """Why numerics cannot be portable on this processor; None where they can."""
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return f"portable numerics are for x86-64, and this processor is {platform.machine()}"
    if "avx2" not in _processor()["flags"]:
        return "portable numerics need AVX2, which this processor lacks"
    return None


def say_gpu(devices: str) -> None:
    """Tell, where numerics were to be portable, that the work is done by GPUs."""
    if os.environ.get(MODE) == "portable":
        _say(f"on GPUs the result is the same for the same type and number of them ({devices}), and equal up to rounding on others")


@cache
def _say(text: str) -> None:
    print(f"numerics: {text}", file=sys.stderr, flush=True)


def divide(threads: int | None, parameters: int = 0) -> int:
    """Into how many parts torch and MKL are to cut work on a model of so many PARAMETERS.

    Under portable numerics that follows from the model alone, and THREADS says how many cores compute the parts; else THREADS of them, one
    for each core where none is given.
    """
    if is_portable():
        return LARGE if parameters >= LARGE_FROM else SMALL
    return threads or cores()


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def confine(threads: int | None) -> None:
    """Let a process with portable numerics compute on THREADS cores at most, on such as no other step has been confined to."""
    if threads is None or not is_portable() or not hasattr(os, "sched_setaffinity") or threads >= cores():
        return
    allowed = sorted(os.sched_getaffinity(0))
    free = [core for core in allowed if len(_claims) < threads and _claim(core)]
    os.sched_setaffinity(0, [*free, *(core for core in allowed if core not in free)][:threads])


def _claim(core: int) -> bool:
    """Whether CORE is now this process's own among those of this user that are confined; a core that cannot be claimed is none."""
    folder = Path(tempfile.gettempdir()) / f"adapterbuild-cores-{os.getuid()}"
    with suppress(OSError):
        folder.mkdir(mode=0o700, exist_ok=True)
        file = (folder / str(core)).open("w")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.close()
            return False
        _claims.append(file)
        return True
    return False


def description() -> dict[str, Any]:
    """What was asked for and what this processor offers, for the provenance; values are strings, numbers and lists of strings."""
    processor = _processor()
    offers = [flag for flag in ("avx2", "fma", "avx512f", "avx512_bf16", "amx_tile") if flag in processor["flags"]]
    asked = os.environ.get(MODE, "native")
    found: dict[str, Any] = {"asked": asked, "processor": processor["name"], "offers": offers}
    if asked == "portable":
        reason = obstacle()
        own = {name: os.environ[name] for name, value in VARIABLES.items() if os.environ.get(name, value) != value}
        own |= {name: os.environ[name] for name in _UNFIT if name in os.environ}
        found |= {"obstacle": reason} if reason else {"set_by_user": own} if own else {}
    return found


@cache
def _processor() -> dict[str, Any]:
    """Name and features of the processor, as Linux tells them."""
    values: dict[str, str] = {}
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines():
            key, _, value = line.partition(":")
            values.setdefault(key.strip(), value.strip())
    return {
        "name": values.get("model name") or platform.processor() or platform.machine(),
        "flags": frozenset(values.get("flags", "").split()),
    }
