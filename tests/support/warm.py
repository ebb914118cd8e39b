"""Python in forks of a process that has imported the libraries: what a cold start does, without seconds of imports for each step.

The warm `python` hands its `-m MODULE ...`, `-c CODE ...` or script, with `-P` or without, to that process and waits for it; whatever is
then started by this name, or as `sys.executable`, is handed over too. Nothing of ours is imported beforehand: each fork reads the
workspace's own code. Tests of kills and of processes themselves start a Python of their own.
"""

import sys

if __name__ == "__main__":
    # Run as a script: this folder itself must not be searched.
    del sys.path[0]

import atexit
import importlib
import json
import os
import runpy
import select
import shutil
import signal
import socket
import subprocess
import tempfile
import traceback
from functools import cache
from pathlib import Path

LIBRARIES = (
    "dvc.cli dvc.repo dvc.commands.repro dvc.repo.reproduce dvc.stage.run dvc.stage.cache dvc.output typer pydantic yaml rich.console "
    "jinja2 tokenizers safetensors.torch torch torch.optim transformers.models.llama.modeling_llama transformers.modeling_utils peft"
)
_ENVIRONMENT = {"HF_HUB_OFFLINE": "1", "DS_ACCELERATOR": "cpu", "TORCHDYNAMO_DISABLE": "1", "OMP_WAIT_POLICY": "PASSIVE"}
"""As a step has it when it imports the libraries (stages.models.folders.prepare_process)."""
_NUMERICS = {
    **{"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_CBWR": "AVX2", "OPENBLAS_CORETYPE": "Haswell"},
    **{"OPENBLAS_NUM_THREADS": "1", "NPY_DISABLE_CPU_FEATURES": "X86_V4 AVX512_ICL AVX512_SPR"},
}
"""What portable numerics set (stages.process.numerics.VARIABLES); a process that has one otherwise is started cold."""

_CLIENT = """\
#!{python} -IS
import json, os, socket, sys
# The hub's library reads where the hub is when it is imported.
others = [key for key, value in {numerics!r}.items() if os.environ.get(key, value) != value]
asked = sys.argv[2:3] if sys.argv[1:2] == ["-P"] else sys.argv[1:2]
if not (asked in (["-m"], ["-c"]) or asked[0:1] and asked[0].endswith(".py")) or "HF_ENDPOINT" in os.environ or others:
    os.execv({python!r}, [{python!r}, *sys.argv[1:]])
connection = socket.socket(socket.AF_UNIX)
connection.connect({address!r})
socket.send_fds(connection, [b"."], [0, 1, 2])
connection.sendall(json.dumps([sys.argv[1:], os.getcwd(), dict(os.environ)]).encode())
connection.shutdown(socket.SHUT_WR)
sys.exit(int(connection.recv(9) or b"70"))
"""


@cache
def warm_python(mkl: str = _NUMERICS["MKL_CBWR"]) -> Path:
    """The `python` of this test process, started when it is first asked for; an ordinary one on machines with a GPU.

    MKL: the branch of MKL's code that its processes use, which is chosen when the library is loaded.
    """
    # Libraries look for GPUs when they are imported, and what was forked afterwards cannot use any.
    if Path("/dev/nvidiactl").exists():
        return Path(sys.executable)
    # Not below pytest's folders: the address of a socket may have a hundred characters.
    folder = Path(tempfile.mkdtemp(prefix="warm-"))
    python, address = folder / "python", str(folder / "socket")
    numerics = _NUMERICS | {"MKL_CBWR": mkl}
    python.write_text(_CLIENT.format(python=sys.executable, address=address, numerics=numerics))
    python.chmod(0o755)
    command = [sys.executable, __file__, address, str(python)]
    server = subprocess.Popen(command, env=os.environ | _ENVIRONMENT | numerics, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert server.stdout and server.stdout.readline() == b"ready\n"
    atexit.register(_stop, server, folder)
    return python


def _stop(server: "subprocess.Popen[bytes]", folder: Path) -> None:
    server.communicate(timeout=20)
    shutil.rmtree(folder)


def serve(address: str, python: str) -> None:
    """Run each request in a fork, until stdin is closed."""
    for name in LIBRARIES.split():
        importlib.import_module(name)
    sys.executable = python
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(address)
        listening.listen(64)
        print("ready", flush=True)
        while 0 not in (readable := select.select([listening, 0], [], [], 1.0)[0]):
            if readable:
                connection, _ = listening.accept()
                if os.fork() == 0:
                    listening.close()
                    _answer(connection)
                connection.close()
            while _reaped():
                pass


def _reaped() -> bool:
    try:
        return os.waitpid(-1, os.WNOHANG)[0] != 0
    except ChildProcessError:
        return False


def _answer(connection: socket.socket) -> None:
    """Run what is asked for with the files of the one who asks, and tell it the exit code."""
    _, descriptors, _, _ = socket.recv_fds(connection, 1, 3)
    with connection.makefile("rb") as text:
        arguments, cwd, environment = json.loads(text.read())
    for number, descriptor in enumerate(descriptors):
        os.dup2(descriptor, number)
        os.close(descriptor)
    # The one who asks is its parent in all but name.
    environment.pop("ADAPTERBUILD_PARENT", None)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(cwd)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    safe = arguments[0] == "-P"
    sys.path[:0] = filter(None, environment.get("PYTHONPATH", "").split(os.pathsep))
    code = _run(arguments[safe:], None if safe or environment.get("PYTHONSAFEPATH") else cwd)
    sys.stdout.flush()
    sys.stderr.flush()
    connection.sendall(str(code).encode())
    os._exit(code)


def _run(arguments: list[str], cwd: str | None) -> int:
    """Run what is asked for; modules are looked for in CWD first, unless it is None (a safe path), and beside a script."""
    sort = arguments[0]
    script = sort not in ("-m", "-c")
    sys.argv = arguments if script else arguments[1:] if sort == "-m" else ["-c", *arguments[2:]]
    sys.path[:0] = [str(Path(sort).parent) if script else cwd] if cwd else []
    try:
        if script:
            runpy.run_path(sort, run_name="__main__")
        elif sort == "-m":
            runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
        else:
            exec(arguments[1], {"__name__": "__main__"})
    except SystemExit as ended:
        if isinstance(ended.code, str):
            print(ended.code, file=sys.stderr)
        return ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


if __name__ == "__main__":
    serve(*sys.argv[1:])
