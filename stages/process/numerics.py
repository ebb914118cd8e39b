"""Portable numerics: a step computes the same bits on every x86-64 processor with AVX2 of one vendor, whatever its number of cores.

Two things change the last bits of a sum: the instruction set that a library selects for the processor, and the number of parts into which
it divides work for the machine's cores. `begin` fixes the first, through environment variables that libraries read when they are loaded or
first used; `divide` fixes the second, by the size of the model only. What neither reaches are functions that start from the processor's own
approximation of a reciprocal: `replace_approximations` takes them from numpy. All three apply to the process of a step.
Nothing here imports torch or numpy at import.
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
"""Environment variable that passes the requested numerics to child processes (torchrun's workers)."""

VARIABLES = {
    # torch's own kernels: https://docs.pytorch.org/docs/stable/backends.html
    "ATEN_CPU_CAPABILITY": "avx2",
    # oneDNN: https://uxlfoundation.github.io/oneDNN/dev_guide_cpu_dispatcher_control.html
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    # MKL's conditional numerical reproducibility. With a fixed number of threads, as here, `,STRICT` has no effect on Intel processors;
    # on AMD processors MKL treats AVX2 as AUTO, and small matrices depend on the number of threads even with STRICT.
    "MKL_CBWR": "AVX2",
    # numpy's BLAS, and numpy's functions with AVX-512 variants.
    "OPENBLAS_CORETYPE": "Haswell",
    "OPENBLAS_NUM_THREADS": "1",
    "NPY_DISABLE_CPU_FEATURES": "X86_V4 AVX512_ICL AVX512_SPR",
}
"""Environment variables that restrict libraries to AVX2."""

_UNFIT = ("MKL_ENABLE_INSTRUCTIONS", "OMP_DYNAMIC", "OMP_THREAD_LIMIT")
"""Variables that would override the others or the number of threads; they should be unset."""

_IGNORED = ("MKL_NUM_THREADS", "MKL_DOMAIN_NUM_THREADS", "MKL_DYNAMIC")
"""Variables that are removed, since `resources.threads` decides: MKL takes them for the products inside torch's parallel regions too, where
on Intel's processors another number of threads gives other sums."""

HANDED_ON = (MODE, *VARIABLES)
"""Variables that processes of this step on other hosts need too."""

SMALL, LARGE, LARGE_FROM = 2, 8, 10_000_000
"""Number of parts into which work is divided, for models below a number of parameters, and for others. They decide bits: an edit changes
results. More parts than cores cost little, since waiting threads sleep; with fewer parts, cores are idle."""

_claims: list[IO[str]] = []
"""Lock files of the cores that this process has claimed, held until it exits."""


def begin(asked: Numerics) -> None:
    """Set up this process for a step as ASKED; must be called before torch or numpy is imported.

    Variables set by the user are kept. Obstacles to portable results are reported on stderr, once per process.
    """
    os.environ[MODE] = asked
    if asked == "native":
        return
    if reason := obstacle():
        _say(f"{reason}: results are identical on machines of this type, and equal up to rounding on others")
        return
    for name in _IGNORED:
        os.environ.pop(name, None)
    for name, value in VARIABLES.items():
        if os.environ.setdefault(name, value) != value:
            _say(f"{name}={os.environ[name]} from the environment is kept; portable numerics would set {value}")
    for name in _UNFIT:
        if name in os.environ:
            _say(f"{name}={os.environ[name]} is set in the environment and may change the last bits of results; unset it")


def is_portable() -> bool:
    """Whether this process runs with portable numerics."""
    return os.environ.get(MODE) == "portable" and obstacle() is None


def obstacle() -> str | None:
    """Why numerics cannot be portable on this processor; None if they can."""
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return f"portable numerics need x86-64, and this processor is {platform.machine()}"
    if "avx2" not in _processor()["flags"]:
        return "portable numerics need AVX2, which this processor lacks"
    return None


_replaced: list[Any] = []
"""torch's libraries of the replacements: these hold as long as the libraries live."""


def replace_approximations() -> None:
    """Let numpy compute those functions of torch's CPU tensors whose last bits depend on the model of the processor.

    torch takes the functions of single numbers from MKL's vector mathematics. Its code for AMD's processors (and for Intel's under
    `MKL_CBWR=COMPATIBLE`) computes these from `rsqrtps` and `rcpps`, approximations whose bits each family of processors has of its own:
    of a million square roots, 20 % are not the nearest number. bitsandbytes' optimizers take such roots. numpy's root is that of IEEE 754.
    Nothing happens unless numerics are portable. Gradients are torch's own.
    """
    if _replaced or not is_portable():
        return
    import numpy
    import torch

    def replacement(function: Any) -> Any:
        def values(tensor: Any) -> Any:
            given = tensor.detach()
            if not (given.is_floating_point() or given.is_complex()):
                given = given.to(torch.get_default_dtype())
            wide = given.float() if given.dtype in (torch.bfloat16, torch.float16) else given.resolve_conj()
            found = torch.empty_like(wide)
            with numpy.errstate(all="ignore"):  # the root of -1 is nan, as in torch
                function(wide.numpy(), out=found.numpy())
            return found.to(given.dtype)

        return values

    def written(values: Any) -> Any:
        def write(tensor: Any, *, out: Any) -> Any:
            found = values(tensor)
            return out.resize_(found.shape).copy_(found)

        return write

    library = torch.library.Library("aten", "IMPL", "CPU")
    for name, function in {
        "sqrt": numpy.sqrt,
        "log2": numpy.log2,
        "log10": numpy.log10,
        "asin": numpy.arcsin,
        "acos": numpy.arccos,
        "atan": numpy.arctan,
    }.items():
        values = replacement(function)
        library.impl(name, values, allow_override=True)
        library.impl(f"{name}_", lambda tensor, values=values: tensor.copy_(values(tensor)), allow_override=True)
        library.impl(f"{name}.out", written(values), allow_override=True)
    _replaced.append(library)


def say_gpu(devices: str) -> None:
    """Report that GPUs do the work, if numerics should be portable."""
    if os.environ.get(MODE) == "portable":
        _say(f"on GPUs results are identical for the same type and number of GPUs ({devices}), and equal up to rounding on others")


def say_slow_bfloat16() -> None:
    """Report that bfloat16 matrices are multiplied on a CPU without its instructions for them, if numerics are portable."""
    if is_portable():
        hint = 'set training.precision to "float32", or resources.numerics to "native"'
        _say(f"bfloat16 on a CPU with portable numerics is slower than float32, by a factor of ten and more: {hint}")


@cache
def _say(text: str) -> None:
    print(f"numerics: {text}", file=sys.stderr, flush=True)


def divide(threads: int | None, parameters: int = 0) -> int:
    """Number of threads (parts of work) for torch and MKL, for a model with PARAMETERS weights.

    Under portable numerics it follows from the model only, and THREADS limits the cores that compute the parts; otherwise it is THREADS,
    by default one per core.
    """
    if is_portable():
        return LARGE if parameters >= LARGE_FROM else SMALL
    return threads or cores()


def cores() -> int:
    """Number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def confine(threads: int | None) -> None:
    """Confine a process with portable numerics to at most THREADS cores, to cores that no other step is confined to."""
    if threads is None or not is_portable() or not hasattr(os, "sched_setaffinity") or threads >= cores():
        return
    allowed = sorted(os.sched_getaffinity(0))
    free = [core for core in allowed if len(_claims) < threads and _claim(core)]
    os.sched_setaffinity(0, [*free, *(core for core in allowed if core not in free)][:threads])


def _claim(core: int) -> bool:
    """Whether this process now holds the lock on CORE, among confined processes of this user; False if it cannot be locked."""
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
    """The requested numerics and the processor's features, for the provenance; values are strings, numbers and lists of strings."""
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
    """Name and features of the processor, from /proc/cpuinfo."""
    values: dict[str, str] = {}
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines():
            key, _, value = line.partition(":")
            values.setdefault(key.strip(), value.strip())
    return {
        "name": values.get("model name") or platform.processor() or platform.machine(),
        "flags": frozenset(values.get("flags", "").split()),
    }
