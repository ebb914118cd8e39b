"""The fork server of `engine build`: imports torch, transformers and peft once and forks for each step, which then need not import them.

It hands on libraries only. Of this project's code it keeps nothing: a fork imports `engine` and `stages` from disk as a new process does,
so that no step runs code from before an edit. The build sends requests over a socket, the server's stdin. When that is closed the server
exits, and the system sends SIGTERM to its forks, as to every step whose parent dies (see stages.process.parent).
"""

import atexit
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import sys
import threading
import traceback
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NoReturn

from stages.models.folders import ENVIRONMENT, ENVIRONMENT_WITHOUT_GPU
from stages.process import numerics
from stages.process.parent import PARENT, die_with_parent, named
from stages.process.quiet import keep_quiet

READY = b"ready"
"""What the server sends as soon as it can fork."""

_LIBRARIES = (
    *("pydantic", "jinja2", "yaml", "numpy", "tokenizers", "safetensors.torch", "torch.optim", "transformers.modeling_utils"),
    *("transformers.generation", "transformers.models.auto.modeling_auto", "transformers.models.auto.tokenization_auto", "peft"),
    *("deepspeed", "dvclive", "rouge_score.rouge_scorer", "sacrebleu"),
)
"""What the bodies of steps import; those that are not installed are skipped."""


@dataclass
class _Server:
    control: socket.socket
    interrupted: Any
    """What a step's process does on SIGINT."""
    environment: dict[str, str] = field(default_factory=lambda: dict(os.environ))
    """Environment variables of a step's process, before a library or `numerics.begin` has set any."""
    installed: tuple[int, ...] = field(default_factory=lambda: _installed())
    running: dict[int, tuple[int, socket.socket]] = field(default_factory=dict)
    """For the pidfd of each running fork, its process id and the socket that waits for its exit status."""

    def serve(self) -> None:
        """Fork for each request until the build closes the socket."""
        while True:
            readable, _, _ = select.select([self.control.fileno(), *self.running], [], [])
            for ended in self.running.keys() & set(readable):
                pid, connection = self.running.pop(ended)
                status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
                os.close(ended)
                with connection:
                    connection.send(str(status).encode(), socket.MSG_NOSIGNAL)
            if self.control.fileno() in readable:
                request, descriptors, _, _ = socket.recv_fds(self.control, 4096, 3)
                if not request:
                    return
                self.answer(*json.loads(request), *descriptors)

    def answer(self, kind: str, name: str, output: int, errors: int, answer: int) -> None:
        """Fork for the step NAME and send its process id and pidfd; if packages have been installed meanwhile, only close the socket."""
        connection = socket.socket(fileno=answer)
        if _installed() == self.installed:
            parent = named()
            pid = os.fork()
            if pid == 0:
                self.control.close()
                for other, (_, waiting) in self.running.items():
                    os.close(other)
                    waiting.close()
                connection.close()
                self.become(kind, name, output, errors, parent)
            pidfd = os.pidfd_open(pid)
            socket.send_fds(connection, [str(pid).encode()], [pidfd], socket.MSG_NOSIGNAL)
            self.running[pidfd] = pid, connection
        else:
            connection.close()
        os.close(output)
        os.close(errors)

    def become(self, kind: str, name: str, output: int, errors: int, parent: str) -> NoReturn:
        """Run the step in this fork as `python -P -m adapterbuild stages KIND NAME` does, and exit."""
        nothing = os.open(os.devnull, os.O_RDONLY)
        for number, descriptor in enumerate((nothing, output, errors)):
            os.dup2(descriptor, number)
            os.close(descriptor)
        sys.stdout.reconfigure(line_buffering=os.isatty(1))  # type: ignore[union-attr]
        signal.signal(signal.SIGINT, self.interrupted)
        os.environ.clear()
        os.environ.update(self.environment | {PARENT: parent})
        # The name that `top` shows.
        Path("/proc/self/comm").write_text(name)
        sys.argv = ["stages", kind, name]
        importlib.invalidate_caches()
        status = 1
        try:
            runpy.run_module("stages", run_name="__main__", alter_sys=True)
        except SystemExit as ended:
            status = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
        except BaseException:
            traceback.print_exc()
        # As Python does at its end, which would then take apart thousands of modules.
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _installed() -> tuple[int, ...]:
    """A stamp of the folders of installed packages, which changes when one is installed, upgraded or removed."""
    folders = [Path(path) for path in sys.path if path.endswith("-packages")]
    return tuple(folder.stat().st_mtime_ns for folder in folders if folder.is_dir())


def main() -> None:
    """Import the libraries, and fork for each request on the socket that is stdin."""
    die_with_parent(signal.SIGKILL)
    # A terminal's ^C is for the build, which then closes the socket, and for the steps.
    interrupted = signal.signal(signal.SIGINT, signal.SIG_IGN)
    with socket.socket(fileno=os.dup(0)) as control:
        server = _Server(control, interrupted)
        numerics.begin("portable")
        keep_quiet()
        # Libraries read these when they are imported; the last one ends a thread of pyarrow's allocator, which a fork would lack.
        for variable, value in {**ENVIRONMENT, **ENVIRONMENT_WITHOUT_GPU, "JE_ARROW_MALLOC_CONF": "background_thread:false"}.items():
            os.environ.setdefault(variable, value)
        asked = dict(os.environ)
        for name in _LIBRARIES:
            if find_spec(name.partition(".")[0]):
                importlib.import_module(name)
        # Some set variables for themselves when they are imported.
        server.environment |= dict(os.environ.items() - asked.items())
        for name in [name for name in sys.modules if name.partition(".")[0] in ("engine", "stages")]:
            del sys.modules[name]
        if len(os.listdir("/proc/self/task")) > 1:  # noqa: PTH208 - their number is enough
            sys.exit("a library has started a thread, which a fork would lack: steps start as processes of their own")
        gc.collect()
        # Collections in forks would write into all objects, and so copy their pages.
        gc.freeze()
        control.send(READY)
        server.serve()


if __name__ == "__main__":
    main()
